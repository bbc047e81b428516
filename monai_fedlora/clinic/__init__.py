"""Use an exported bundle: read a patient's study, classify it, and show which places the answer depends on.

`bundle.open_bundle` opens a bundle as a classifier, `prediction.predict_study` classifies one study of
`monai_fedlora.studies.finding.find_studies`, and `many.predict_all` classifies many into a folder of results.
"""
