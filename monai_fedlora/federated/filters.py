"""The allow-list gate that stands on both ends of a connection."""

from __future__ import annotations

from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.filter import ContentBlockedException, Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.utils.fl_context_utils import add_job_audit_event

from monai_fedlora.errors import FedLoraError, PrivacyError
from monai_fedlora.federated.context import MANIFEST_NAME, REPORT_KEY, load_manifest
from monai_fedlora.scope import Manifest, check_report

_MESSAGE_PARTS = {ReservedHeaderKey.HEADERS, "DXO"}


class SharedOnly(Filter):
    """Let a message pass only if it holds exactly the manifest's tensors, or a report of numbers.

    Works for task data and task results, on the site and on the server. Anything else (another kind of
    message, an undeclared key, shape or dtype, NaN, text in the report, an unknown part of the message)
    blocks the whole message. An error reply passes as a bare return code.

    Args:
        manifest: file beside the job's configuration, or, in a site's own ``privacy.json``, the absolute path
            of the manifest that the site has approved.
    """

    def __init__(self, manifest: str = MANIFEST_NAME) -> None:
        super().__init__()
        self.manifest = manifest
        self._loaded: Manifest | None = None

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the message unchanged, or raise ``ContentBlockedException``."""
        code = shareable.get_return_code()
        if code and code != ReturnCode.OK:
            return make_reply(code)
        try:
            self._check(shareable, fl_ctx)
        except FedLoraError as error:
            add_job_audit_event(fl_ctx, msg=f"message blocked: {error}")
            self.log_error(fl_ctx, f"message blocked: {error}", fire_event=False)
            raise ContentBlockedException(str(error)) from None
        return shareable

    def _check(self, shareable: Shareable, fl_ctx: FLContext) -> None:
        if extra := set(shareable) - _MESSAGE_PARTS:
            raise PrivacyError(f"undeclared parts of the message: {', '.join(sorted(map(str, extra)))}")
        try:
            dxo = from_shareable(shareable)
        except Exception as error:
            raise PrivacyError(f"the message is not a DXO ({type(error).__name__})") from None
        if dxo.data_kind == DataKind.METRICS:
            check_report(dxo.data)
            if dxo.meta:
                raise PrivacyError(f"undeclared meta: {', '.join(sorted(map(str, dxo.meta)))}")
        elif dxo.data_kind == DataKind.WEIGHTS:
            if self._loaded is None:
                self._loaded = load_manifest(fl_ctx, self.manifest)
            self._loaded.check(dxo.data)
            if extra := set(dxo.meta or {}) - {REPORT_KEY}:
                raise PrivacyError(f"undeclared meta: {', '.join(sorted(map(str, extra)))}")
            if REPORT_KEY in (dxo.meta or {}):
                check_report(dxo.meta[REPORT_KEY])
        else:
            raise PrivacyError(f"messages of kind {dxo.data_kind!r} may not travel")
