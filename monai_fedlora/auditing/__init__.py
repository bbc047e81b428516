"""Attacks by a site against its own model, and by a researcher against a run, before anything of them is given away.

`membership_audit.audit_model` takes a bundle or a finished run with the site's prepared data, runs the attacks of
`monai_fedlora.exporting.leakage` and, for a run, LiRA with shadow models and `run_audit.audit_run`: membership from
what the server saw, who took part from the shared model, images from small batches. Its results name no patient.
"""
