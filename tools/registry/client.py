"""The OCI distribution client, for many threads at once: connections and tokens are shared.

A registry on a loopback address is spoken to over plain HTTP, any other over TLS. The
login is sent only when the registry asks for one, and to nobody else.
"""

import base64
import contextlib
import functools
import re
import threading
from typing import Literal, NamedTuple
from urllib.parse import urljoin, urlsplit

from msgspec import Struct
from requests import Response
from requests.exceptions import ChunkedEncodingError
from urllib3.exceptions import MaxRetryError

from tools.core import http
from tools.core.errors import PipelineError
from tools.core.files import parse_json
from tools.core.secrets import Secret, redact, remember
from tools.core.settings import Settings
from tools.registry import manifest as oci
from tools.registry.manifest import Descriptor, Manifest, is_loopback

# Docker Hub's name and the name of its registry are two.
HUB = "registry-1.docker.io"
HUB_NAMES = {"docker.io", "index.docker.io", HUB}
CONNECTIONS = 32  # that are kept open: as many as threads use one object
ACCEPT = ", ".join((*oci.MANIFEST_TYPES, "application/json"))


class RegistryError(PipelineError):
    """The registry refused a request, did not respond, or sent something unexpected."""

    status = 0  # the HTTP status of a refusal; 0 without a response
    said = ""  # the registry's own words: MANIFEST_UNKNOWN: manifest unknown


class NotFound(RegistryError):
    """A clean 404: the registry says that it doesn't have this."""


# What a status means: words between host and thing, and what to do.
_REFUSALS = {
    401: ("wants a login for", "Give a token that this registry knows (GH_TOKEN on GitHub's)."),
    403: ("refuses", "Give a token with the right for it (packages: write to push)."),
    404: ("does not have", ""),
}


class Challenge(NamedTuple):
    """What a registry asks for in its refusal (RFC 9110, section 11)."""

    scheme: str  # bearer or basic
    realm: str = ""  # where a token is fetched
    service: str = ""


# A parameter (``realm="..."``), or the word that begins a challenge (``Bearer``).
_PART = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z][\w-]*)')


def choose_challenge(header: str) -> Challenge | None:
    """What to answer of a ``WWW-Authenticate`` header: Bearer before Basic, else None."""
    offered: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for key, quoted, plain, scheme in _PART.findall(header):
        if scheme:
            parameters = offered.setdefault(scheme.lower(), {})
        else:
            parameters[key.lower()] = plain or re.sub(r"\\(.)", r"\1", quoted)
    for scheme in ("bearer", "basic"):
        if (found := offered.get(scheme)) is not None:
            return Challenge(scheme, found.get("realm", ""), found.get("service", ""))
    return None


class _Body(Struct):
    """What is read of a JSON body: a page of tags or of referrers, errors, a token."""

    tags: list[str] | None = None
    manifests: list[Descriptor] | None = None
    errors: list[dict[str, object]] | None = None
    token: str = ""
    access_token: str = ""


def basic(user: str, password: Secret) -> str:
    """The value of an ``Authorization`` header for a login; masked in what we print."""
    value = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
    remember(value)
    return f"Basic {value}"


class Registry:
    """A registry; what goes wrong is a RegistryError, what is not there NotFound."""

    def __init__(
        self,
        host: str,  # host[:port]
        user: str = "",
        password: Secret | None = None,  # or token; empty for anonymous use
        *,
        ca_certificates: str = "",  # PEM file of authorities to trust; UsageError if it is not
        retries: int = 5,
        backoff: float = 0.5,  # seconds of the first pause between repeats; it doubles
        timeout: float = 60.0,  # seconds without a sign of life
    ) -> None:
        self.host = host
        address = HUB if host in HUB_NAMES else host
        self.url = f"{'http' if is_loopback(host) else 'https'}://{address}"
        self._basic = basic(user, password) if password else ""
        self._policy = http.retry(retries, backoff)
        session = http.session(self._policy, ca_certificates, CONNECTIONS)
        session.headers["Accept"] = ACCEPT
        # The size in a HEAD's response is that of the bytes, not of their compression.
        session.headers["Accept-Encoding"] = "identity"
        session.trust_env = not is_loopback(host)  # no proxy leads to this machine
        times = (min(10, timeout), timeout)  # to connect, to read
        self._ask = functools.partial(session.request, timeout=times, allow_redirects=False)
        self._challenge: Challenge | None = None
        self._tokens: dict[str, str] = {}
        self._fetching = threading.Lock()

    def head(self, name: str, reference: str) -> Descriptor:
        """What a tag or digest points at, without its content (Checking if content exists)."""
        headers = self._request("HEAD", f"/v2/{name}/manifests/{reference}", name).headers
        digest = headers.get("Docker-Content-Digest", "")
        size = headers.get("Content-Length", "")
        if not oci.is_digest(digest) or not size.isdecimal():
            # Both headers are only recommended: the content itself always tells.
            return self.manifest(name, reference).descriptor
        media_type = headers.get("Content-Type", "").partition(";")[0].strip()
        return Descriptor(digest, media_type, int(size))

    def manifest(self, name: str, reference: str) -> Manifest:
        """A manifest or index by tag or digest; content is checked against a digest."""
        response = self._request("GET", f"/v2/{name}/manifests/{reference}", name)
        content_type = response.headers.get("Content-Type", "")
        digest = reference if oci.is_digest(reference) else ""
        try:
            return oci.parse_manifest(response.content, content_type, digest)
        except ValueError as error:
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
        pages = self._pages(name, "tags/list?n=1000")
        return [tag for page in pages for tag in page.tags or ()]

    def referrers(self, name: str, digest: str) -> list[Descriptor]:
        """Manifests whose subject is ``digest``: the referrers API, else its fallback tag.

        Source: "Listing Referrers", "Unavailable Referrers API". GitHub's registry has
        no such API and answers with a redirect to a web page, which is not followed.
        """
        try:
            pages = self._pages(name, f"referrers/{digest}")
            return [one for page in pages for one in page.manifests or ()]
        except RegistryError as error:
            if not 300 <= error.status < 500 or error.status in (401, 403, 429):
                raise
        try:
            return list(self.manifest(name, digest.replace(":", "-", 1)).children)
        except NotFound:
            return []

    def answer(self) -> Literal["open", "asks", "accepts", "refuses"]:
        """Whether a registry is open to anybody, asks for a login, or what it says to ours."""
        try:
            self._request("GET", "/v2/", "")
        except RegistryError as error:
            if self._challenge is None or self._basic and error.status not in (401, 403):
                raise
            return "refuses" if self._basic else "asks"
        if self._challenge is None:
            return "open"
        return "accepts" if self._basic else "asks"

    def check_push(self, name: str) -> None:
        """Return if we may push to a repository: an upload is begun and cancelled. A token
        alone proves nothing: some registries give ones that allow less than asked.

        Source: "Pushing a blob in chunks", "Cancelling".
        """
        path = f"/v2/{name}/blobs/uploads/"
        response = self._request("POST", path, name, "pull,push")
        with contextlib.suppress(RegistryError):
            upload = urljoin(path, response.headers.get("Location", ""))
            self._request("DELETE", upload, name, "pull,push")

    def _pages(self, name: str, path: str) -> list[_Body]:
        """Pages of a listing, following ``Link: <...>; rel="next"``."""
        pages, url = [], f"/v2/{name}/{path}"
        while url:
            response = self._request("GET", url, name)
            pages.append(_parse(response))
            following = response.links.get("next", {}).get("url", "")
            url = urljoin(response.url, following) if following else ""
        return pages

    def _request(self, method: str, path: str, name: str, actions: str = "pull") -> Response:
        """A request for ``actions`` on a repository, logged in as the registry asks."""
        url, scope = urljoin(self.url, path), f"repository:{name}:{actions}" if name else ""
        own = url.startswith(f"{self.url}/")  # another host, which it may name, gets no login
        authorization = self._authorization(scope) if own else ""
        response = self._send(method, url, authorization)
        challenge = choose_challenge(response.headers.get("WWW-Authenticate", ""))
        if own and response.status_code == 401 and challenge:
            self._challenge = challenge
            response = self._send(method, url, self._authorization(scope, authorization))
        return _checked(response)

    def _send(self, method: str, url: str, authorization: str, **query: str | None) -> Response:
        headers = {"Authorization": authorization or None}
        policy = self._policy
        try:
            while True:
                try:
                    return self._ask(method, url, headers=headers, params=query)
                except ChunkedEncodingError as error:
                    # A body that breaks off: requests reads it after its own retries.
                    policy = policy.increment(method, url, error=error.args[0])
                    policy.sleep()
        except (OSError, MaxRetryError) as error:
            raise RegistryError(
                f"{urlsplit(url).netloc} cannot be reached: {http.reason(error)}.",
                "Check REGISTRY, the network, the proxy and CA_CERTIFICATES.",
            ) from error

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
        """A token, as distribution's "Token Authentication Specification" has it."""
        parts = urlsplit(challenge.realm)
        if self._basic and not (parts.scheme == "https" or is_loopback(parts.netloc)):
            raise RegistryError(
                f"{self.host} asks for the login at {challenge.realm}, which has no TLS.",
                "Nothing was sent; use a registry whose token server has TLS.",
            )
        query = {"service": challenge.service or None, "scope": scope or None}
        found = _parse(_checked(self._send("GET", challenge.realm, self._basic, **query)))
        token = found.token or found.access_token
        if not token:
            raise RegistryError(f"The token server of {self.host} gave no token.")
        remember(token)
        return token


def _checked(response: Response) -> Response:
    """``response`` if its status is a success; RegistryError or NotFound otherwise."""
    status, address = response.status_code, urlsplit(response.url)
    if 200 <= status < 300:
        return response
    meaning, remedy = _REFUSALS.get(status, (f"answered with status {status} to", ""))
    said = response.content[:200].decode(errors="replace")
    with contextlib.suppress(ValueError):
        errors = parse_json(response.content, _Body).errors or ()
        said = "; ".join(
            ": ".join(str(e[k]) for k in ("code", "message") if k in e) for e in errors
        )
    said = redact(said).strip()[:500]
    kind = NotFound if status == 404 else RegistryError
    words = f" ({said})" if said else ""
    error = kind(f"{address.netloc} {meaning} {address.path}{words}.", remedy)
    error.status, error.said = status, said
    raise error


def _parse(response: Response) -> _Body:
    try:
        return parse_json(response.content, _Body)
    except ValueError as error:
        raise RegistryError(f"{response.url} holds something unexpected: {error}.") from error


def login(settings: Settings, user: str = "") -> tuple[str, Secret]:
    """User and password for the registry of the settings; the password may be empty."""
    if settings.registry in HUB_NAMES:
        return settings.docker_hub_username.reveal(), settings.docker_hub_token
    # GitHub's registry looks at the token alone; any name does. Others want the account's.
    name = settings.registry_username or user or settings.image_name.partition("/")[0]
    return name, settings.gh_token


def connect(settings: Settings, user: str = "") -> Registry:
    """The registry that the settings name, with their login and certificates."""
    certificates = settings.ca_certificates
    return Registry(settings.registry, *login(settings, user), ca_certificates=certificates)
