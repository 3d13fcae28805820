"""HTTP as every service gets it: one session, one policy of what is tried again."""

import re
import ssl

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from tools.core.errors import UsageError
from tools.core.secrets import redact

USER_AGENT = "mlc-llm-pipeline"


def retry(total: int, backoff: float = 0.5) -> Retry:
    """Resets, timeouts, 429 and 5xx are tried again, with any method: ``total`` times, first
    after ``backoff`` seconds, which double, with as much jitter, or as a server asks.
    """
    return Retry(
        total=total,
        other=0,  # certificates that are not trusted
        backoff_factor=backoff,
        backoff_jitter=backoff,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
        raise_on_redirect=False,
        retry_after_max=120,  # seconds that a server can ask for
    )


def reason(error: BaseException) -> str:
    """Why a request failed: the innermost reason, without the names of Python's objects."""
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    if isinstance(inner, BaseException):
        return reason(inner)
    text = re.sub(r"^<?[\w.]+.*?>?: ", "", redact(str(error)))
    return text.rstrip(".") or type(error).__name__


class _Session(requests.Session):
    """A session whose certificates REQUESTS_CA_BUNDLE does not replace."""

    def merge_environment_settings(  # type: ignore[no-untyped-def]
        self, url, proxies, stream, verify, cert
    ):
        """The settings of one request; ours are those that somebody chose for us."""
        chosen = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, chosen, cert)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An ``auth`` that keeps requests from taking a login of ``.netrc`` in place of ours."""
    return request


def session(
    policy: Retry, ca_certificates: str = "", connections: int = 10
) -> requests.Session:
    """A session for one service; the proxy comes from the environment.

    ``ca_certificates`` is a PEM file of authorities to trust (UsageError if it cannot be
    read), empty for the usual ones; ``connections`` are as many as threads use it.
    """
    new = _Session()
    adapter = HTTPAdapter(max_retries=policy, pool_maxsize=connections)
    new.mount("https://", adapter)
    new.mount("http://", adapter)
    new.headers["User-Agent"] = USER_AGENT
    new.auth = _as_it_is
    if ca_certificates:
        try:
            ssl.create_default_context(cafile=ca_certificates)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(
                f"The certificate bundle {ca_certificates} cannot be read: {error}.",
                "Set CA_CERTIFICATES to a PEM file.",
            ) from error
        new.verify = ca_certificates
    return new
