"""A static check of a bundle: its files are read and parsed, but nothing of it is executed or loaded.

An exported bundle passes if it holds exactly the files that an export writes, unchanged since then
(``checksums.json``); if its inference configuration is, word for word, one that an export writes for its kind of image;
if its metadata fit the schema; and if its model files hold tensors and arithmetic only. A training bundle holds
configuration and documents only; its configuration calls listed parts of MONAI and of this package and has no
expressions.

All rules are allow-lists: whatever a rule does not know fails. The check distinguishes a bundle that this package wrote
from one that was changed or damaged. If somebody also rewrote the checksums, the digest of ``checksums.json`` differs
from the one that the export printed, which :func:`monai_fedlora.exporting.check.checker.check_bundle` can compare.
"""
