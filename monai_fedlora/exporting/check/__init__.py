"""A static check of a bundle: its files are read and taken apart, and nothing of it is ever executed or loaded.

An exported bundle passes if it holds the files that an export writes and no others, unchanged since
(``checksums.json``); if its inference configuration is, word for word, one that an export writes for its kind of image;
if its metadata fit the schema; and if its model files hold tensors and arithmetic alone. A training bundle holds
configuration and documents only, calls named parts of MONAI and of this package and has no expression at all.

Everything is an allow-list: what a rule does not know fails. The check tells a bundle that this package wrote from one
that was changed or damaged; whether somebody rewrote the bundle together with its checksums shows in the digest of
``checksums.json``, which the export prints and :func:`monai_fedlora.exporting.check.checker.check_bundle` compares.
"""
