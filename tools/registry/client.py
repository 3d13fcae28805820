"""OCI distribution client: what is in a registry, and what we may do there.

For many threads at once: connections are pooled, tokens shared. Requests are repeated,
with growing pauses, on resets, timeouts, 429 and 5xx (urllib3's ``Retry``, which honours
``Retry-After``). A registry on a loopback address is spoken to over plain HTTP, any other
over TLS. The login is sent only when the registry asks for one.

Source: OCI distribution specification 1.1; section names are given where a rule is used.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

from tools.core.errors import PipelineError
from tools.core.secrets import Secret, redact
from tools.core.settings import Settings
from tools.registry.login import (
    Challenge,
    Tokens,
    basic,
    choose_challenge,
    granted_actions,
    may_send_login,
    token_address,
)
from tools.registry.manifest import (
    MANIFEST_TYPES,
    OCI_INDEX,
    Descriptor,
    InvalidManifest,
    Manifest,
    is_digest,
    is_loopback,
    parse_descriptor,
    parse_manifest,
)

ACCEPT = ", ".join(MANIFEST_TYPES)
RETRIED_STATUSES = (429, 500, 502, 503, 504)
# Longest pause that a registry can ask for with Retry-After, in seconds.
LONGEST_PAUSE = 120
# Manifests over this are refused: registries take 4 MiB ("Pushing Manifests").
MANIFEST_LIMIT = 16 * 2**20


class RegistryError(PipelineError):
    """The registry answered with something unexpected.

    Attributes:
        status: The HTTP status; 0 without an answer.
        said: The registry's own words: ``MANIFEST_UNKNOWN: manifest unknown``.
    """

    def __init__(
        self, message: str, remedy: str = "", *, status: int = 0, said: str = ""
    ) -> None:
        super().__init__(message, remedy)
        self.status = status
        self.said = said


class NotFound(RegistryError):
    """A clean 404: the registry says that it doesn't have this."""


class Unauthorised(RegistryError):
    """The registry wants a login, or refused the one it got."""


class Forbidden(RegistryError):
    """The login is accepted, but may not do this (403)."""


class Unreachable(RegistryError):
    """No answer: no such host, refused, reset, timed out, or TLS failed."""


@dataclass(frozen=True)
class Answer:
    """How a registry answers its base address.

    Attributes:
        challenge: ``bearer``, ``basic``, or empty where no login is asked for.
        login: Whether our login was accepted; None if there was nothing to try.
    """

    challenge: str
    login: bool | None


def _make_pool(
    host: str, ca_certificates: str, connections: int, timeout: float
) -> urllib3.PoolManager:
    """Connections to ``host``, through the proxy that the environment names for it."""
    common: dict[str, Any] = {
        "maxsize": connections,
        "timeout": urllib3.Timeout(connect=min(10, timeout), read=timeout),
        "headers": {"User-Agent": "mlc-llm-pipeline"},
    }
    if is_loopback(host):
        return urllib3.PoolManager(**common)
    context = ssl.create_default_context()
    if ca_certificates:
        try:
            context.load_verify_locations(ca_certificates)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(
                f"The certificate bundle {ca_certificates} cannot be read: {error}.",
                "Set CA_CERTIFICATES to a PEM file.",
            ) from error
    common["ssl_context"] = context
    proxy = urllib.request.getproxies().get("https")
    if proxy and not urllib.request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy, **common)
    return urllib3.PoolManager(**common)


def _error_text(response: urllib3.BaseHTTPResponse) -> str:
    """The registry's own words ("Error Codes"): ``DENIED: requested access...``."""
    try:
        errors = json.loads(response.data)["errors"]
        words = [f"{e.get('code', '')}: {e.get('message', '')}".strip(": ") for e in errors]
        return redact("; ".join(word for word in words if word))[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return redact(response.data[:200].decode(errors="replace")).strip()


class Registry:
    """A registry.

    Args:
        host: ``host[:port]``.
        user: Name of the login; the registry of GitHub takes any beside a token.
        password: Password or token; empty for anonymous use.
        ca_certificates: PEM file of authorities to trust besides the system's.
        connections: How many are kept open: as many as threads use this object.
        retries: How often a request is repeated before it has failed.
        backoff: Seconds of the first pause between repeats; it doubles.
        timeout: Seconds without a sign of life after which a request has failed.
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
        # Docker Hub's name and its registry's are two.
        self.address = (
            "registry-1.docker.io" if host in {"docker.io", "index.docker.io"} else host
        )
        scheme = "http" if is_loopback(host) else "https"
        self.url = f"{scheme}://{self.address}"
        self._user = user
        self._password = password or Secret()
        self._pool = _make_pool(host, ca_certificates, connections, timeout)
        self._retry = urllib3.Retry(
            total=retries,
            backoff_factor=backoff,
            backoff_jitter=backoff,
            status_forcelist=RETRIED_STATUSES,
            allowed_methods=None,
            raise_on_status=False,
            raise_on_redirect=False,
            retry_after_max=LONGEST_PAUSE,
        )
        self._challenge: Challenge | None = None
        self._tokens = Tokens(self._fetch_token)

    # --- what callers use ---

    def head(self, name: str, reference: str) -> Descriptor:
        """What a tag or digest points at, without its content ("Checking if content exists").

        Raises:
            NotFound: There is no such manifest.
            RegistryError: Anything else, see the subclasses.
        """
        response = self._manifest_request("HEAD", name, reference)
        digest = response.headers.get("Docker-Content-Digest", "")
        size = response.headers.get("Content-Length", "")
        if not is_digest(digest) or not size.isdigit():
            # Both headers are only recommended: the content itself always tells.
            return self.manifest(name, reference).descriptor
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Descriptor(media_type, digest, int(size))

    def manifest(self, name: str, reference: str) -> Manifest:
        """A manifest or index by tag or digest; content is checked against a digest.

        Raises:
            NotFound: There is no such manifest.
            RegistryError: Anything else, see the subclasses.
        """
        response = self._manifest_request("GET", name, reference)
        told = response.headers.get("Content-Type", "")
        wanted = reference if is_digest(reference) else ""
        try:
            if len(response.data) > MANIFEST_LIMIT:
                raise InvalidManifest(f"the content has {len(response.data)} bytes")
            return parse_manifest(response.data, told, wanted)
        except InvalidManifest as error:
            raise RegistryError(
                f"{self.host} sent no valid manifest for {name}, {reference}: {error}."
            ) from error

    def sizes(self, name: str, reference: str) -> dict[str, int]:
        """Compressed bytes that a pull moves, for each platform of an image.

        Returns:
            ``os/architecture[/variant]`` to bytes; the one platform of a plain manifest
            is not named by it, so its key is empty. Attestations are no images.

        Raises:
            NotFound: The image, or one of its parts, is not there.
            RegistryError: Anything else, see the subclasses.
        """
        top = self.manifest(name, reference)
        if not top.is_index:
            return {"": top.size}
        found: dict[str, int] = {}
        for child in top.children:
            if not child.is_attestation:
                inner = self.sizes(name, child.digest)
                found |= {key or child.platform: size for key, size in inner.items()}
        return found

    def tags(self, name: str) -> list[str]:
        """All tags of a repository ("Listing Tags"), every page of them.

        Raises:
            NotFound: There is no such repository.
            RegistryError: Anything else, see the subclasses.
        """
        found: list[str] = []
        for response in self._pages(name, f"/v2/{name}/tags/list?n=1000", "application/json"):
            listed = self._json(response, f"the tags of {name}").get("tags") or []
            found += [str(tag) for tag in listed]
        return found

    def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """Manifests whose subject is ``digest``: the referrers API, else its fallback tag.

        Source: "Listing Referrers", "Unavailable Referrers API". GitHub's registry has
        no such API and answers with a redirect to a web page, which is not followed.

        Raises:
            RegistryError: Neither could be read.
        """
        path = f"/v2/{name}/referrers/{digest}"
        try:
            pages = list(self._pages(name, path, OCI_INDEX))
        except NotFound:
            pages = []
        except RegistryError as error:
            if not 300 <= error.status < 500 or error.status in (401, 403, 429):
                raise
            pages = []
        if pages:
            contents = [self._json(page, f"the referrers of {digest}") for page in pages]
            listed = [one for content in contents for one in content.get("manifests") or ()]
            return self._descriptors(listed, f"the referrers of {digest}")
        try:
            fallback = self.manifest(name, digest.replace(":", "-", 1))
        except NotFound:
            return []
        return list(fallback.children)

    def answer(self) -> Answer:
        """Whether the registry answers, asks for a login, and accepts ours.

        Raises:
            Unreachable: It doesn't answer.
            RegistryError: Something answers that is no registry.
        """
        response = self._send("GET", f"{self.url}/v2/", {})
        challenge = self._learn_challenge(response)
        if response.status == 401 and challenge is not None:
            if not self._password:
                return Answer(challenge.scheme, None)
            try:
                self._check(self._request("GET", "/v2/", ""), "its base address")
            except Unauthorised:
                return Answer(challenge.scheme, False)
            return Answer(challenge.scheme, True)
        self._check(response, "its base address")
        return Answer("", None)

    def check_push(self, name: str) -> None:
        """Return if we may push to a repository; nothing is pushed.

        A token for a push is asked for, an upload begun and cancelled ("Pushing a blob
        in chunks", "Cancelling"): some registries give tokens that allow less than asked.

        Raises:
            Unauthorised: No login, or a refused one.
            Forbidden: The login may not push here.
            RegistryError: Anything else, see the subclasses.
        """
        scope = f"repository:{name}:pull,push"
        path = f"/v2/{name}/blobs/uploads/"
        response = self._request("POST", path, scope)
        if self._challenge and self._challenge.scheme == "bearer":
            granted = granted_actions(self._tokens.get(scope), name)
            if granted is not None and not granted & {"push", "*"}:
                raise self._refused(Forbidden, f"a push to {name}", "no push in the token", 403)
        self._check(response, f"a push to {name}")
        where = response.headers.get("Location", "")
        if where:
            self._request("DELETE", urljoin(self.url + path, where), scope)

    # --- how requests are made ---

    def _manifest_request(
        self, method: str, name: str, reference: str
    ) -> urllib3.BaseHTTPResponse:
        path = f"/v2/{name}/manifests/{reference}"
        response = self._request(method, path, f"repository:{name}:pull", {"Accept": ACCEPT})
        return self._check(response, f"{name}, {reference}")

    def _request(
        self, method: str, path: str, scope: str, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """One request, logged in as the registry asks; any final status is returned."""
        url = path if path.startswith(("http:", "https:")) else self.url + path
        sent = dict(headers or {})
        # A login goes to the registry alone, wherever a Location points.
        mine = urlsplit(url).netloc == self.address
        token = ""
        for _ in range(2):
            if self._challenge is not None and mine:
                authorization = self._authorization(self._challenge, scope, token)
                if authorization:
                    sent["Authorization"] = authorization
                    token = authorization.removeprefix("Bearer ")
            response = self._send(method, url, sent)
            if response.status != 401 or not mine:
                return response
            if self._learn_challenge(response) is None:
                return response
        return response

    def _send(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                method, url, headers=dict(headers), retries=self._retry, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            cause = getattr(error, "reason", None) or error
            text = re.sub(r"^<?[\w.]+.*?>?: ", "", redact(str(cause)))
            raise Unreachable(
                f"{urlsplit(url).netloc} cannot be reached: {text}.",
                "Check REGISTRY, the network, the proxy and CA_CERTIFICATES.",
            ) from error

    def _learn_challenge(self, response: urllib3.BaseHTTPResponse) -> Challenge | None:
        if response.status != 401:
            return None
        header = ", ".join(response.headers.getlist("WWW-Authenticate"))
        challenge = choose_challenge(header)
        if challenge is not None:
            self._challenge = challenge
        return challenge

    def _authorization(self, challenge: Challenge, scope: str, refused: str) -> str:
        if challenge.scheme == "basic":
            return basic(self._user, self._password) if self._password else ""
        try:
            return f"Bearer {self._tokens.get(scope, refused)}"
        except ValueError as error:
            raise RegistryError(f"The token server of {self.host} gave no token.") from error

    def _fetch_token(self, scope: str) -> Mapping[str, object]:
        challenge = self._challenge
        assert challenge is not None
        headers: dict[str, str] = {}
        if self._password:
            if not may_send_login(challenge.realm):
                raise RegistryError(
                    f"{self.host} asks for the login at {challenge.realm}, which has no TLS.",
                    "Nothing was sent; use a registry whose token server has TLS.",
                )
            headers["Authorization"] = basic(self._user, self._password)
        response = self._send("GET", token_address(challenge, scope), headers)
        self._check(response, "a token")
        return self._json(response, "a token")

    def _pages(self, name: str, path: str, accept: str) -> Iterator[urllib3.BaseHTTPResponse]:
        """Responses of a listing, following ``Link: <...>; rel="next"``."""
        while path:
            response = self._request("GET", path, f"repository:{name}:pull", {"Accept": accept})
            yield self._check(response, path)
            following = re.search(
                r'<([^>]*)>\s*;\s*rel="?next"?', response.headers.get("Link", "")
            )
            path = urljoin(self.url + path, following.group(1)) if following else ""
            if path and urlsplit(path).netloc != self.address:
                raise RegistryError(f"{self.host} names a next page on another host.")
            path = path.removeprefix(self.url)

    # --- what an answer means ---

    def _check(self, response: urllib3.BaseHTTPResponse, what: str) -> urllib3.BaseHTTPResponse:
        """``response`` if its status is a success; the matching exception otherwise."""
        status = response.status
        if 200 <= status < 300:
            return response
        kinds = {401: Unauthorised, 403: Forbidden, 404: NotFound}
        raise self._refused(
            kinds.get(status, RegistryError), what, _error_text(response), status
        )

    def _refused(
        self, kind: type[RegistryError], what: str, words: str, status: int
    ) -> RegistryError:
        remedies: dict[type[RegistryError], str] = {
            Unauthorised: "Give a token that this registry knows (GH_TOKEN on GitHub's).",
            Forbidden: "Give a token with the right for it (packages: write to push).",
        }
        said = f" ({words})" if words else ""
        meaning = {401: "wants a login", 403: "refuses", 404: "does not have"}.get(
            status, f"answered with status {status} to the request for"
        )
        text = f"{self.host} {meaning}"
        text += f" for {what}" if status == 401 else f" {what}"
        return kind(f"{text}{said}.", remedies.get(kind, ""), status=status, said=words)

    def _json(self, response: urllib3.BaseHTTPResponse, what: str) -> dict[str, Any]:
        try:
            content = json.loads(response.data)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise RegistryError(f"{self.host} sent no JSON object for {what}.")
        return content

    def _descriptors(self, listed: list[object], what: str) -> list[Descriptor]:
        try:
            return [parse_descriptor(one) for one in listed]
        except InvalidManifest as error:
            raise RegistryError(
                f"{self.host} sent a wrong list for {what}: {error}."
            ) from error


def login(settings: Settings, user: str = "") -> tuple[str, Secret]:
    """User and password for the registry of the settings; the password may be empty."""
    if settings.registry in {"docker.io", "index.docker.io", "registry-1.docker.io"}:
        return settings.docker_hub_username.reveal(), settings.docker_hub_token
    # GitHub's registry looks at the token alone; any name does. Others want the account's.
    name = settings.registry_username or user or settings.image_name.partition("/")[0]
    return name, settings.gh_token


def connect(settings: Settings, user: str = "", connections: int = 32) -> Registry:
    """The registry that the settings name, with their login and certificates."""
    name, password = login(settings, user)
    return Registry(
        settings.registry,
        name,
        password,
        ca_certificates=settings.ca_certificates,
        connections=connections,
    )
