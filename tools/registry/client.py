"""The OCI distribution client, for many threads at once: connections and tokens are shared.

A registry on a loopback address is spoken to over plain HTTP, any other over TLS. The
login is sent only when the registry asks for one, and to nobody else.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import requests
from msgspec import Struct
from urllib3.exceptions import MaxRetryError

from tools.core import http
from tools.core.errors import PipelineError
from tools.core.files import parse_json
from tools.core.secrets import Secret, redact, remember
from tools.core.settings import Settings
from tools.registry import manifest as oci
from tools.registry.login import Challenge, basic, choose_challenge
from tools.registry.manifest import Descriptor, InvalidManifest, Manifest, is_loopback

# Docker Hub's name and the name of its registry are two.
HUB = "registry-1.docker.io"
HUB_NAMES = {"docker.io", "index.docker.io", HUB}


class RegistryError(PipelineError):
    """The registry answered with something unexpected."""

    status = 0  # the HTTP status; 0 without a response
    said = ""  # the registry's own words: MANIFEST_UNKNOWN: manifest unknown


class NotFound(RegistryError):
    """A clean 404: the registry says that it doesn't have this."""


class Unauthorised(RegistryError):
    """The registry wants a login, or refused the one it got."""


class Forbidden(RegistryError):
    """The login is accepted, but may not do this (403)."""


class Unreachable(RegistryError):
    """No response: no such host, refused, reset, timed out, or TLS failed."""


_LOGIN = "Give a token that this registry knows (GH_TOKEN on GitHub's)."
_RIGHT = "Give a token with the right for it (packages: write to push)."
# What a status means: the exception, words between host and thing, what to do.
_REFUSALS = {
    401: (Unauthorised, "wants a login for", _LOGIN),
    403: (Forbidden, "refuses", _RIGHT),
    404: (NotFound, "does not have", ""),
}


@dataclass(frozen=True)
class Answer:
    """How a registry answers its base address."""

    challenge: str  # bearer, basic, or empty where no login is asked for
    login: bool | None  # whether ours was accepted; None if there was nothing to try


class _Body(Struct):
    """What is read of a JSON body: a page of tags or of referrers, errors, a token."""

    tags: list[str] | None = None
    manifests: list[Descriptor] | None = None
    errors: list[dict[str, object]] | None = None
    token: str = ""
    access_token: str = ""


class Registry:
    """A registry; what goes wrong is one of the errors above, what is not there NotFound.

    Args:
        host: ``host[:port]``.
        user: Name of the login; the registry of GitHub takes any beside a token.
        password: Password or token; empty for anonymous use.
        ca_certificates: PEM file of authorities to trust; empty for the usual ones.
        connections: How many are kept open: as many as threads use this object.
        retries: How often a request is repeated before it has failed.
        backoff: Seconds of the first pause between repeats; it doubles.
        timeout: Seconds without a sign of life after which a request has failed.

    Raises:
        UsageError: The certificates cannot be read.
    """

    def __init__(
        self,
        host: str,
        user: str = "",
        password: Secret | None = None,
        *,
        ca_certificates: str = "",
        connections: int = 32,
        retries: int = 5,
        backoff: float = 0.5,
        timeout: float = 60.0,
    ) -> None:
        self.host = host
        address = HUB if host in HUB_NAMES else host
        self.url = f"{'http' if is_loopback(host) else 'https'}://{address}"
        self._basic = basic(user, password) if password else ""
        self._policy = http.retry(retries, backoff)
        self._session = http.session(ca_certificates, self._policy, connections)
        # The size in a HEAD's response is that of the bytes, not of their compression.
        self._session.headers["Accept-Encoding"] = "identity"
        self._timeouts = (min(10, timeout), timeout)  # to connect, to read
        # No proxy leads to this machine.
        self._session.trust_env = not is_loopback(host)
        self._challenge: Challenge | None = None
        self._tokens: dict[str, str] = {}
        self._fetching = threading.Lock()

    # --- what callers use ---

    def head(self, name: str, reference: str) -> Descriptor:
        """What a tag or digest points at, without its content (Checking if content exists)."""
        headers = self._manifest_request("HEAD", name, reference).headers
        digest = headers.get("Docker-Content-Digest", "")
        size = headers.get("Content-Length", "")
        if not oci.is_digest(digest) or not size.isdigit():
            # Both headers are only recommended: the content itself always tells.
            return self.manifest(name, reference).descriptor
        media_type = headers.get("Content-Type", "").partition(";")[0].strip()
        return Descriptor(digest, media_type, int(size))

    def manifest(self, name: str, reference: str) -> Manifest:
        """A manifest or index by tag or digest; content is checked against a digest."""
        response = self._manifest_request("GET", name, reference)
        content_type = response.headers.get("Content-Type", "")
        digest = reference if oci.is_digest(reference) else ""
        try:
            return oci.parse_manifest(response.content, content_type, digest)
        except InvalidManifest as error:
            raise RegistryError(
                f"{self.host} sent no valid manifest for {name}, {reference}: {error}."
            ) from error

    def sizes(self, name: str, reference: str) -> list[int]:
        """Compressed bytes that a pull moves, for each platform of an image."""
        top = self.manifest(name, reference)
        if not top.is_index:
            return [top.size]
        images = [child.digest for child in top.children if not child.is_attestation]
        return [size for digest in images for size in self.sizes(name, digest)]

    def tags(self, name: str) -> list[str]:
        """All tags of a repository ("Listing Tags"), every page of them."""
        pages = self._pages(name, f"/v2/{name}/tags/list?n=1000", "application/json")
        return [tag for page in pages for tag in page.tags or ()]

    def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """Manifests whose subject is ``digest``: the referrers API, else its fallback tag.

        Source: "Listing Referrers", "Unavailable Referrers API". GitHub's registry has
        no such API and answers with a redirect to a web page, which is not followed.
        """
        try:
            pages = list(self._pages(name, f"/v2/{name}/referrers/{digest}", oci.OCI_INDEX))
            return [one for page in pages for one in page.manifests or ()]
        except RegistryError as error:
            if not 300 <= error.status < 500 or error.status in (401, 403, 429):
                raise
        try:
            return list(self.manifest(name, digest.replace(":", "-", 1)).children)
        except NotFound:
            return []

    def answer(self) -> Answer:
        """Whether the registry answers, asks for a login, and accepts ours."""
        response = self._send("GET", f"{self.url}/v2/")
        challenge = self._learn_challenge(response)
        if challenge is None:
            _check(response, self.host, "its base address")
            return Answer("", None)
        if not self._basic:
            return Answer(challenge.scheme, None)
        try:
            _check(self._request("GET", "/v2/", ""), self.host, "its base address")
        except Unauthorised:
            return Answer(challenge.scheme, False)
        return Answer(challenge.scheme, True)

    def check_push(self, name: str) -> None:
        """Return if we may push to a repository: an upload is begun and cancelled.

        A token alone proves nothing: some registries give ones that allow less than asked.
        Source: "Pushing a blob in chunks", "Cancelling".

        Raises:
            Unauthorised: No login, or a refused one.
            Forbidden: The login may not push here.
        """
        scope = f"repository:{name}:pull,push"
        path = f"/v2/{name}/blobs/uploads/"
        response = _check(self._request("POST", path, scope), self.host, f"a push to {name}")
        location = response.headers.get("Location", "")
        if location:
            self._request("DELETE", urljoin(path, location), scope)

    # --- how requests are made ---

    def _manifest_request(self, method: str, name: str, reference: str) -> requests.Response:
        path = f"/v2/{name}/manifests/{reference}"
        accept = ", ".join(oci.MANIFEST_TYPES)
        response = self._request(method, path, f"repository:{name}:pull", accept)
        return _check(response, self.host, f"{name}, {reference}")

    def _pages(self, name: str, path: str, accept: str) -> Iterator[_Body]:
        """Pages of a listing, following ``Link: <...>; rel="next"``."""
        while path:
            response = self._request("GET", path, f"repository:{name}:pull", accept)
            yield _parse(_check(response, self.host, path))
            following = response.links.get("next", {}).get("url", "")
            path = urljoin(response.url, following) if following else ""

    def _request(
        self, method: str, path: str, scope: str, accept: str = "*/*"
    ) -> requests.Response:
        """One request, logged in as the registry asks; any final status is returned."""
        url = urljoin(self.url, path)
        if not url.startswith(f"{self.url}/"):
            # The registry named another host: that one gets no login.
            return self._send(method, url, accept=accept)
        authorization = self._authorization(scope)
        response = self._send(method, url, authorization, accept)
        if self._learn_challenge(response):
            authorization = self._authorization(scope, refused=authorization)
            response = self._send(method, url, authorization, accept)
        return response

    def _send(
        self, method: str, url: str, authorization: str = "", accept: str = "*/*"
    ) -> requests.Response:
        headers = {"Accept": accept, "Authorization": authorization or None}
        policy = self._policy
        try:
            while True:
                try:
                    return self._session.request(
                        method,
                        url,
                        headers=headers,
                        timeout=self._timeouts,
                        allow_redirects=False,
                    )
                except requests.exceptions.ChunkedEncodingError as error:
                    # A body that breaks off: requests reads it after its own retries.
                    policy = policy.increment(method, url, error=error.args[0])
                    policy.sleep()
        except (OSError, MaxRetryError) as error:
            raise Unreachable(
                f"{urlsplit(url).netloc} cannot be reached: {_cause(error)}.",
                "Check REGISTRY, the network, the proxy and CA_CERTIFICATES.",
            ) from error

    def _learn_challenge(self, response: requests.Response) -> Challenge | None:
        """What a 401 asks for, kept for further requests; None if it is not one."""
        header = response.headers.get("WWW-Authenticate", "")
        challenge = choose_challenge(header) if response.status_code == 401 else None
        self._challenge = challenge or self._challenge
        return challenge

    def _authorization(self, scope: str, refused: str = "") -> str:
        """The ``Authorization`` header; empty where none is asked for or there is no login.

        A token serves all threads until one is ``refused``: then the first fetches another.
        """
        challenge = self._challenge
        if challenge is None or challenge.scheme == "basic":
            return self._basic if challenge else ""
        with self._fetching:
            if self._tokens.get(scope, "") in ("", refused):
                self._tokens[scope] = f"Bearer {self._fetch_token(challenge, scope)}"
            return self._tokens[scope]

    def _fetch_token(self, challenge: Challenge, scope: str) -> str:
        if self._basic and not challenge.may_have_login:
            raise RegistryError(
                f"{self.host} asks for the login at {challenge.realm}, which has no TLS.",
                "Nothing was sent; use a registry whose token server has TLS.",
            )
        response = self._send("GET", challenge.token_url(scope), self._basic)
        found = _parse(_check(response, self.host, "a token"))
        token = found.token or found.access_token
        if not token:
            raise RegistryError(f"The token server of {self.host} gave no token.")
        remember(token)
        return token


def _check(response: requests.Response, host: str, what: str) -> requests.Response:
    """``response`` if its status is a success; the matching exception otherwise."""
    status = response.status_code
    if 200 <= status < 300:
        return response
    other = (RegistryError, f"answered with status {status} to the request for", "")
    kind, meaning, remedy = _REFUSALS.get(status, other)
    said = _error_text(response)
    words = f" ({said})" if said else ""
    error = kind(f"{host} {meaning} {what}{words}.", remedy)
    error.status, error.said = status, said
    raise error


def _parse(response: requests.Response) -> _Body:
    try:
        return parse_json(response.content, _Body)
    except ValueError as error:
        raise RegistryError(f"{response.url} holds something unexpected: {error}.") from error


def _error_text(response: requests.Response) -> str:
    """The registry's own words ("Error Codes"): ``DENIED: requested access...``."""
    try:
        errors = parse_json(response.content, _Body).errors or ()
        words = [f"{e.get('code', '')}: {e.get('message', '')}".strip(": ") for e in errors]
        return redact("; ".join(word for word in words if word))[:500]
    except ValueError:
        return redact(response.content[:200].decode(errors="replace")).strip()


def _cause(error: BaseException) -> str:
    """The innermost reason of a failed request, without the names of Python's objects."""
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    if isinstance(inner, BaseException):
        return _cause(inner)
    return re.sub(r"^<?[\w.]+.*?>?: ", "", redact(str(error)))


def login(settings: Settings, user: str = "") -> tuple[str, Secret]:
    """User and password for the registry of the settings; the password may be empty."""
    if settings.registry in HUB_NAMES:
        return settings.docker_hub_username.reveal(), settings.docker_hub_token
    # GitHub's registry looks at the token alone; any name does. Others want the account's.
    name = settings.registry_username or user or settings.image_name.partition("/")[0]
    return name, settings.gh_token


def connect(settings: Settings, user: str = "", connections: int = 32) -> Registry:
    """The registry that the settings name, with their login and certificates."""
    certificates = settings.ca_certificates
    name, password = login(settings, user)
    return Registry(
        settings.registry, name, password, ca_certificates=certificates, connections=connections
    )
