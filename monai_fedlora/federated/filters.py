"""The allow-list gate that stands on both ends of a connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.filter import ContentBlockedException, Filter, FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.utils.fl_context_utils import add_job_audit_event

from monai_fedlora.errors import ConfigError, FedLoraError, PrivacyError
from monai_fedlora.federated.flare_context import (
    BLOCKED,
    MANIFEST_NAME,
    REPORT_KEY,
    load_form,
    load_manifest,
    private_folder,
    refuse_unread,
)
from monai_fedlora.federated.low_bits import rounded_payload, site_key
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import REASONS
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import REPORTED, MetricsForm, Report

_DXO = "DXO"
_DXO_PARTS = {"kind", "data", "meta"}
_MESSAGE_PARTS = {ReservedHeaderKey.HEADERS, _DXO}
_RESULT_HEADERS = {ReservedHeaderKey.CONTENT_TYPE, ReservedHeaderKey.RC}
_ERROR_CODES = {value for name, value in vars(ReturnCode).items() if name.isupper()} | REASONS.keys()


class SharedOnly(Filter):
    """Let a message pass only if it holds exactly the manifest's tensors, a report of numbers, or a site's readiness.

    Works for task data and task results, on the site and on the server. Anything else (another kind of
    message, an undeclared key, shape or dtype, NaN, text in the report, an unknown part of the message, a header
    that a site's answer brings along, a message that cannot be checked) blocks the whole message. An error reply passes
    as a bare return code, of NVFlare's or of :data:`monai_fedlora.federated.reasons.REASONS`. A report passes in one
    order of its entries, so that the order says nothing.

    Args:
        manifest: file beside the job's configuration, or, in a site's own ``privacy.json``, the absolute path
            of the manifest that the site has approved.
        classes: number of classes that a report may be about; None takes the metrics that it may have from the
            job.
        task, names: in place of classes, the task and the names of what it tells apart.
        kept_bits: of the mantissa of every value that leaves the site, from 1; the others are rounded away by chance,
            see :mod:`monai_fedlora.federated.low_bits`. None (ours) leaves values as they are.

    Raises:
        ConfigError: ``kept_bits`` is out of range.
    """

    def __init__(
        self,
        manifest: str = MANIFEST_NAME,
        classes: int | None = None,
        task: str | None = None,
        names: Sequence[str] = (),
        kept_bits: int | None = None,
    ) -> None:
        super().__init__()
        if kept_bits is not None and (type(kept_bits) is not int or kept_bits < 1):
            raise ConfigError(f"kept_bits is {kept_bits!r}; it must be a whole number of at least 1")
        self.kept_bits = kept_bits
        self.manifest = manifest
        self.classes = classes
        self.task = task
        self.names = list(names)
        self._form: MetricsForm | None = None
        self._loaded: Manifest | None = None

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the message, the same in all it says but for rounded bits (an error reply: its code alone), or raise
        ``ContentBlockedException``.
        """
        try:
            return self._checked(shareable, fl_ctx)
        except Exception as error:
            known = isinstance(error, FedLoraError)
            reason = str(error) if known else f"the message cannot be checked ({type(error).__name__})"
            add_job_audit_event(fl_ctx, msg=f"message blocked: {reason}")
            self.log_error(fl_ctx, f"message blocked: {reason}", fire_event=False)
            fl_ctx.set_prop(BLOCKED, reason, private=True, sticky=False)
            raise ContentBlockedException(reason) from None

    def _checked(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        if not isinstance(shareable, Shareable):
            raise PrivacyError(f"the message is a {type(shareable).__name__}, not a Shareable")
        code = shareable.get_return_code()
        if code != ReturnCode.OK:
            if code not in _ERROR_CODES:
                raise PrivacyError("the message has a return code that is neither one of NVFlare's nor one of ours")
            return make_reply(code)
        _refuse_others("parts of the message", shareable, _MESSAGE_PARTS)
        if self._leaves_site(fl_ctx):
            _refuse_others("headers", shareable[ReservedHeaderKey.HEADERS], _RESULT_HEADERS)
        self._check_dxo(shareable, fl_ctx)
        return shareable

    def _leaves_site(self, fl_ctx: FLContext) -> bool:
        """Whether the message is a site's answer that NVFlare has not added its own headers to."""
        return self._is_result() and fl_ctx.get_prop(FLContextKey.FILTER_DIRECTION) == FilterKey.OUT

    def _is_result(self) -> bool:
        """Whether the message goes up, from a site to the server."""
        return self.get_prop(FilterContextKey.CHAIN_TYPE) == FilterChainType.TASK_RESULT_CHAIN

    def _check_dxo(self, shareable: Shareable, fl_ctx: FLContext) -> None:
        refuse_unread(shareable)
        try:
            dxo = from_shareable(shareable)
        except Exception as error:
            raise PrivacyError(f"the message is not a DXO ({type(error).__name__})") from None
        _refuse_others("entries of the DXO", shareable[_DXO], _DXO_PARTS)
        if dxo.data_kind == DataKind.METRICS:
            _refuse_others("meta", dxo.meta, set())
            shareable[_DXO]["data"] = self._report(dxo.data, REPORTED, fl_ctx)
        elif dxo.data_kind == DataKind.WEIGHTS:
            if self._loaded is None:
                self._loaded = load_manifest(fl_ctx, self.manifest)
            (self._loaded.up if self._is_result() else self._loaded.down).check(dxo.data)
            if self._is_result() and self.kept_bits is not None:
                key = site_key(private_folder(fl_ctx))
                shareable[_DXO]["data"] = rounded_payload(dxo.data, bits=self.kept_bits, key=key)
            _refuse_others("meta", dxo.meta, {REPORT_KEY})
            if REPORT_KEY in dxo.meta:
                shareable[_DXO]["meta"] = {REPORT_KEY: self._report(dxo.meta[REPORT_KEY], REPORTED[:1], fl_ctx)}
        elif dxo.data_kind == DataKind.STATISTICS:
            _refuse_others("meta", dxo.meta, set())
            if dxo.data and not self._is_result():
                raise PrivacyError("who asks whether a site is ready says nothing")
            shareable[_DXO]["data"] = Readiness.parse(dxo.data).to_json() if dxo.data else {}
        else:
            kinds = " or ".join(kind.value for kind in (DataKind.WEIGHTS, DataKind.METRICS, DataKind.STATISTICS))
            raise PrivacyError(f"only messages of kind {kinds} may travel")

    def _report(self, report: Any, splits: Collection[str], fl_ctx: FLContext) -> dict[str, Any]:
        if self._form is None:
            self._form = self._approved() or load_form(fl_ctx)
        return Report.parse(report, form=self._form, splits=splits).to_json()

    def _approved(self) -> MetricsForm | None:
        """The metrics that the site's own gate names."""
        if self.classes is not None:
            return MetricsForm(classes=self.classes)
        if self.task is None:
            return None
        from monai_fedlora.tasks.known import TASKS

        return TASKS[self.task].form(self.names)


def _refuse_others(what: str, found: Iterable[Any], allowed: set[str]) -> None:
    if others := set(found) - allowed:
        raise PrivacyError(f"undeclared {what}: {', '.join(sorted(map(repr, others)))}")
