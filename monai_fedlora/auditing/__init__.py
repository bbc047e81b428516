"""Membership inference against an own model, as its site runs it before letting the model out.

`audit_model` takes a bundle or a finished run with the site's prepared data, runs the attacks of
`monai_fedlora.exporting.leakage` and, for a run, LiRA with shadow models, and returns figures without any patient.
"""
