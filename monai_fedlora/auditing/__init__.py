"""Membership inference attacks by a site against its own model, before the model is given away.

`membership_audit.audit_model` takes a bundle or a finished run with the site's prepared data, runs the attacks of
`monai_fedlora.exporting.leakage` and, for a run, LiRA with shadow models. Its results name no patient.
"""
