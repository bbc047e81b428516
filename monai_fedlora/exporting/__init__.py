"""Export a finished run as MONAI bundles or PEFT adapter folders.

What a bundle holds, for programs that read it:

- ``configs/inference.json``: MONAI's configuration; ``configs/metadata.json``: the content of the model card as JSON.
- ``models/model.ts``: TorchScript. ``forward(image)`` maps raw images to calibrated logits (batch, classes);
  ``preprocessor(image)`` maps raw to prepared images, and ``network(prepared)`` prepared images to calibrated logits.
  If metadata ``out_of_distribution.available`` is true, ``assess(image)`` returns logits and distances (batch,). The
  share ``out_of_distribution.quantile`` of the site's own cases lies within ``out_of_distribution.threshold``. Unusable
  images raise an error. Of a segmentation of cines, ``forward(image, affine)`` maps raw frames (batch, 2, X, Y, Z) to
  masks of the same shape, and ``measure(mask, affine)`` the masks of one study to the numbers of ``masks.csv`` and the
  reason why there are none.
- ``models/model.pt``: the state dictionary of the network, whose logits are not calibrated.
- ``models/model.pt2`` (optional): a program of `torch.export`; ``models/model.onnx`` (optional). Metadata
  ``model_files`` says whether each takes raw or prepared images.
- metadata ``calibration`` (not of a segmentation): the ``temperature`` that the logits are divided by, whether it was
  ``fitted``, the ``reason`` if not, and ``ece`` and ``nll`` ``before`` and ``after`` for "validation" and "test" where
  known.
- metadata ``provenance``: backbone, method, federation, licence, software; ``eval_metrics.test``: test metrics by view.
- ``docs/README.md``, the model card, and ``docs/CLAIM.md``, a checklist for reports.
- ``checksums.json``: ``{"algorithm": "sha256", "files": {path: digest}}`` of all other files.

Data of single cases stay at the site. Besides its weights, a personal bundle holds a noisy mean of its training and
validation patients for ``assess``, and a temperature; a shared bundle holds neither.
"""
