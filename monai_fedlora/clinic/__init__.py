"""An exported bundle in use: read a patient's study, classify it, and say where the answer comes from.

`bundle.open_bundle` gives a classifier, `predict.predict_study` a prediction of one study that
`monai_fedlora.studies.finding.find_studies` found, and `many.predict_all` a folder of results.
"""
