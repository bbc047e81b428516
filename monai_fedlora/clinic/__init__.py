"""An exported bundle in use: read a patient's study, classify it, and say where the answer comes from.

`bundle.open_bundle` gives a classifier, `finding.find_studies` what there is to classify, `predict.predict_study` a
prediction of one study and `many.predict_all` a folder of results.
"""
