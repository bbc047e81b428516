"""Personal bundles and adapter folders made from a finished run.

What a bundle holds, for those who read it:

- ``configs/inference.json``: MONAI's configuration; ``configs/metadata.json``: what the card says, for programs.
- ``models/model.ts``: TorchScript. ``forward(image)`` gives calibrated logits (batch, classes) of raw images;
  ``preprocessor(image)`` what the network takes, ``network(prepared)`` calibrated logits of that. Where metadata
  ``out_of_distribution.available`` is true there is also ``assess(image)``, logits and distances (batch,): a distance
  above ``out_of_distribution.threshold`` is larger than that of the share ``out_of_distribution.quantile`` of the
  site's own cases. Unusable images raise an error.
- ``models/model.pt``: the network's plain state dictionary, whose logits are not calibrated.
- ``models/model.pt2`` (unless left out): a program of `torch.export`; ``models/model.onnx`` (if asked for). What each
  takes, raw or prepared images, says metadata ``model_files``.
- metadata ``calibration``: the ``temperature`` that the logits are divided by already, whether it was ``fitted``, the
  ``reason`` if not, and ``ece`` and ``nll`` ``before`` and ``after`` for "validation" and "test" where known.
- metadata ``provenance``: backbone, method, federation, licence, software; ``eval_metrics.test``: by view.
- ``docs/README.md``, the card, and ``docs/CLAIM.md``, a checklist for reports.
- ``checksums.json``: ``{"algorithm": "sha256", "files": {path: digest}}`` of all other files.

Everything about single cases stays in the site. What a personal bundle knows of its training cases beside its weights
are the mean and the covariance that ``assess`` needs; a shared bundle has neither, and no temperature.
"""
