"""Draft, upload, verify, publish: a release is complete and verified, or not visible.

What makes it safe to kill, to repeat and to run twice at once:

- A run changes assets of its own draft alone (:mod:`tools.release.owner`), so nobody
  takes an asset away from a draft that another run is about to publish.
- It publishes only after a fresh listing has shown every asset complete, with the right
  size and digest. An asset that we have tried to delete never counts as complete.
- GitHub refuses a second published release of a tag; the run that comes second finds
  the other's release and compares.
- Drafts of others are removed only once the release is published: from then on they
  cannot be.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from dataclasses import replace as replace_of
from pathlib import Path
from typing import Any, BinaryIO, cast

from tools.core.console import say, warn
from tools.core.errors import PipelineError
from tools.github.errors import GitHubError
from tools.github.old import GitHub
from tools.release.owner import Owner, read_mark
from tools.release.plan import Asset, ReleasePlan, is_latest
from tools.release.progress import Body, Meter, progress
from tools.repo.versions import parse_tag

UPLOADS = 16  # at once; GitHub allows 100 requests at once
RELEASES_A_PAGE = 30  # each comes with all of its assets
ROUNDS = 8
FILLS = 6

Json = Mapping[str, Any]


class Vanished(Exception):
    """Our draft is gone, or the tag was published meanwhile: look again."""


@dataclass(frozen=True)
class Outcome:
    """How it ended: ``published``, ``replaced`` or ``nothing to do``; where; by whom."""

    what: str
    url: str
    number: int


@dataclass
class Found:
    """What GitHub has for the tag, and which tags are published at all."""

    published: Json | None
    drafts: list[Json]
    published_tags: list[str] = field(default_factory=list)


class Publisher:
    """Publishes one plan.

    Args:
        client: GitHub.
        plan: What to publish.
        owner: Who we are.
        kept: Folder for the notes of drafts that are removed.
    """

    def __init__(self, client: GitHub, plan: ReleasePlan, owner: Owner, kept: Path) -> None:
        self.client = client
        self.plan = plan
        self.mark = owner.mark(plan.fingerprint)
        self.owner = owner
        self.kept = kept
        self.path = f"/repos/{plan.repository}/releases"
        self.expected = {asset.name: asset for asset in plan.assets}
        self._doomed: set[int] = set()
        self._digests: dict[int, str] = {}
        self._lock = threading.Lock()

    def run(self, replace: bool = False) -> Outcome:
        """Bring the release about.

        Args:
            replace: Whether a published release with other content may be replaced.

        Raises:
            PipelineError: It is there with other content, or cannot be completed.
        """
        for attempt in range(ROUNDS):
            try:
                return self._round(replace)
            except Vanished as reason:
                say(f"{reason}; looking again")
                if attempt and not self.client.retry(attempt, GitHubError(f"{reason}.")):
                    break
        raise PipelineError(
            f"The release of {self.plan.tag} could not be completed: its draft kept vanishing.",
            "See who else works on the repository's releases, then run it again.",
        )

    def _round(self, replace: bool) -> Outcome:
        found = self.look()
        old = found.published
        if old is not None:
            different = self.differences(old)
            if not different:
                self._tidy(found.drafts, old)
                return Outcome("nothing to do", str(old["html_url"]), int(old["id"]))
            self._check_replaceable(old, different, replace)
        draft = self._take_over(found.drafts) or self._create()
        self._fill(draft)
        if old is not None:
            # From here until the new one is published, none is visible.
            mark = replace_of(self.mark, fingerprint="replaced")
            self._edit(old, {"draft": True, "body": mark.to_text()})
        release = self._publish(draft)
        self._tidy(self.look().drafts, release)
        what = "published" if old is None else "replaced"
        return Outcome(what, str(release["html_url"]), int(release["id"]))

    # --- looking ----------------------------------------------------------------

    def look(self) -> Found:
        """What GitHub has: drafts are in the list alone, and for those who may push."""
        ours: dict[int, Json] = {}
        tags = []
        for release in self.client.get_pages(self.path, {"per_page": RELEASES_A_PAGE}):
            if not release["draft"]:
                tags.append(str(release["tag_name"]))
            if release["tag_name"] == self.plan.tag:
                ours[int(release["id"])] = release
        published = [r for r in ours.values() if not r["draft"]]
        if len(published) > 1:
            raise PipelineError(
                f"GitHub shows {len(published)} published releases of {self.plan.tag}:"
                f" {', '.join(str(r['html_url']) for r in published)}.",
                "Delete all but one by hand, and run it again.",
            )
        return Found(
            published=published[0] if published else self._by_tag(),
            drafts=sorted((r for r in ours.values() if r["draft"]), key=lambda r: int(r["id"])),
            published_tags=tags,
        )

    def _by_tag(self) -> Json | None:
        """The published release of the tag; the list may lag behind."""
        tag = urllib.parse.quote(self.plan.tag, safe="")
        try:
            return cast(Json, self.client.request("GET", f"{self.path}/tags/{tag}").data)
        except GitHubError as error:
            if error.status == 404:
                return None
            raise

    def _assets(self, release: Json) -> list[Json]:
        """All assets of a release, unfinished ones included; Vanished if it is gone."""
        try:
            return list(self.client.get_pages(f"{self.path}/{release['id']}/assets"))
        except GitHubError as error:
            if error.status == 404:
                raise Vanished(f"the draft {release['id']} is gone") from None
            raise

    def differences(self, release: Json) -> list[str]:
        """How a release's assets differ from the plan; empty when they are the same."""
        there = {str(asset["name"]): asset for asset in self._assets(release)}
        lines = [f"lacks {name}" for name in self.expected if name not in there]
        for name, asset in there.items():
            if name not in self.expected:
                lines.append(f"has {name}, which is not part of this release")
            elif not self.is_good(asset):
                want, has = self.expected[name], asset.get("digest") or asset["state"]
                there_is = f"there {asset['size']} bytes, {has}"
                lines.append(f"{name}: {there_is}; here {want.size} bytes, {want.digest}")
        return lines

    def is_good(self, asset: Json) -> bool:
        """Whether an asset is complete and is what it should be."""
        want = self.expected.get(str(asset["name"]))
        if want is None or asset["state"] != "uploaded" or asset["size"] != want.size:
            return False
        with self._lock:
            if int(asset["id"]) in self._doomed:
                return False
        return (asset.get("digest") or self._hash(asset)) == want.digest

    def _hash(self, asset: Json) -> str:
        """The digest of an asset that GitHub reports none of: from its bytes."""
        number = int(asset["id"])
        if number not in self._digests:
            digest = hashlib.sha256()
            for piece in self.client.download(f"{self.path}/assets/{number}"):
                digest.update(piece)
            self._digests[number] = f"sha256:{digest.hexdigest()}"
        return self._digests[number]

    def _check_replaceable(self, old: Json, different: Sequence[str], replace: bool) -> None:
        """Refuse to touch a published release unless that was asked for and is possible."""
        listed = "\n".join(f"- {line}" for line in different)
        if old.get("immutable"):
            raise PipelineError(
                f"{self.plan.tag} is published with other content, and is immutable.",
                "Publish a new version.",
                listed,
            )
        if not replace:
            raise PipelineError(
                f"{self.plan.tag} is published with other content: {old['html_url']}.",
                "Publish a new version, or replace the assets with --replace-assets.",
                listed,
            )
        say(f"replacing the assets of {self.plan.tag}:\n{listed}")

    # --- the draft --------------------------------------------------------------

    def _body(self) -> str:
        return f"{self.plan.notes}\n{self.mark.to_text()}"

    def _fields(self) -> dict[str, Any]:
        return {
            "tag_name": self.plan.tag,
            "target_commitish": self.plan.commit,
            "name": self.plan.tag,
            "prerelease": self.plan.prerelease,
        }

    def _create(self) -> Json:
        """A draft of our own. Without an answer it may be there: then it is looked for."""
        given = {**self._fields(), "body": self._body(), "draft": True}
        attempt = 0
        while True:
            try:
                return cast(Json, self.client.request("POST", self.path, json=given).data)
            except GitHubError as error:
                if not error.acted or not self.client.retry(attempt, error):
                    raise
                say(f"{error.message} Looking whether the draft is there.")
            for draft in self.look().drafts:
                mark = read_mark(draft["body"])
                if mark and mark.nonce == self.mark.nonce:
                    return draft
            attempt += 1

    def _take_over(self, drafts: Sequence[Json]) -> Json | None:
        """The oldest draft of the same files that is ours, or whose run has ended."""
        for draft in drafts:
            mark = read_mark(draft["body"])
            if mark is None or mark.fingerprint != self.mark.fingerprint:
                continue
            if mark.nonce == self.mark.nonce:
                return draft
            if self.owner.outlived(mark) and self._claim(draft, mark.nonce):
                say(f"continuing the draft {draft['id']} of an earlier run")
                return draft
        return None

    def _claim(self, draft: Json, former: str) -> bool:
        """Make a left draft ours, so that only one of several heirs gets it.

        An asset's name can be taken once: who uploads the claim wins, unless the draft
        had changed hands before. The claim goes with the other assets that do not
        belong to the release.
        """
        address = str(draft["upload_url"]).partition("{")[0]
        name = f"claim-{former}"
        content = b"claim\n"
        try:
            answer = self.client.upload(
                address, {"name": name}, io.BytesIO(content), len(content), "text/plain"
            )
            claim = int(answer.data["id"])
            now = self.client.request("GET", f"{self.path}/{draft['id']}").data
            mark = read_mark(now["body"])
            if not now["draft"] or mark is None or mark.nonce != former:
                self._delete_asset(claim)
                return False
            self._edit(draft, {"body": self._body()})
        except (GitHubError, Vanished) as error:
            say(f"the draft {draft['id']} cannot be continued: {error}")
            return False
        return True

    def _edit(self, release: Json, fields: Mapping[str, Any]) -> Json:
        try:
            path = f"{self.path}/{release['id']}"
            return cast(Json, self.client.request("PATCH", path, json=fields).data)
        except GitHubError as error:
            if error.status == 404 and self._is_gone(release):
                raise Vanished(f"the draft {release['id']} is gone") from None
            raise

    def _is_gone(self, release: Json) -> bool:
        """Whether a release is not there: a 404 may also be a missing right."""
        try:
            self.client.request("GET", f"{self.path}/{release['id']}")
        except GitHubError as error:
            return error.status == 404
        return False

    # --- assets -----------------------------------------------------------------

    def _fill(self, draft: Json) -> None:
        """Make the draft's assets those of the plan; ends with a listing that says so.

        Raises:
            Vanished: The draft is gone.
            PipelineError: An asset is wrong time and again.
        """
        there: list[Json] = []
        for attempt in range(FILLS):
            if attempt or draft["assets"]:  # a draft that was just made has none
                there = self._assets(draft)
            good = {str(asset["name"]) for asset in there if self.is_good(asset)}
            wrong = [asset for asset in there if str(asset["name"]) not in good]
            missing = [asset for asset in self.plan.assets if asset.name not in good]
            if not wrong and not missing:
                say(f"verified: {len(good)} assets, sizes and digests as they should be")
                return
            for asset in wrong:
                say(f"removing {asset['name']} ({asset['state']}, {asset['size']} bytes)")
                self._delete_asset(int(asset["id"]))
            self._upload_all(draft, missing)
        raise PipelineError(
            f"The assets of {self.plan.tag} are wrong after {FILLS} tries.",
            "Check that dist/ does not change meanwhile, and GitHub's status.",
        )

    def _upload_all(self, draft: Json, assets: Sequence[Asset]) -> None:
        """Upload several at a time, the largest first; the first error ends it."""
        total = sum(asset.size for asset in assets)
        title = f"uploading {len(assets)} assets"
        if assets:
            say(title)
        by_size = sorted(assets, key=lambda asset: -asset.size)
        with progress(total, title) as meter, ThreadPoolExecutor(UPLOADS) as pool:
            waiting = [pool.submit(self._upload, draft, asset, meter) for asset in by_size]
            try:
                for done in as_completed(waiting):
                    done.result()
            except BaseException as error:
                for one in waiting:
                    one.cancel()
                if not isinstance(error, Vanished):
                    self.client.stop.set()  # the other uploads break off
                raise

    def _upload(self, draft: Json, asset: Asset, meter: Meter) -> None:
        """Upload one asset; after a failure, look what became of it before the next try."""
        address = str(draft["upload_url"]).partition("{")[0]
        params, attempt = {"name": asset.name}, 0
        with contextlib.ExitStack() as stack:
            while True:
                body = Body(asset.path, asset.size, meter, self.client.stop)
                try:
                    source = cast(BinaryIO, body)
                    self.client.upload(address, params, source, asset.size, asset.content_type)
                    return
                except GitHubError as error:
                    if attempt == 0:
                        stack.enter_context(self.client.trouble())
                    body.take_back()
                    if self._recover(draft, asset, error, attempt):
                        meter.advance(asset.size)
                        return
                finally:
                    body.close()
                attempt += 1

    def _recover(self, draft: Json, asset: Asset, error: GitHubError, attempt: int) -> bool:
        """After a failed upload: whether the asset is there, else ready for another try."""
        if error.status == 404 and self._is_gone(draft):
            raise Vanished(f"the draft {draft['id']} is gone")
        taken = "already_exists" in error.codes
        if not (taken or error.acted or error.limited):
            raise error
        say(f"{asset.name}: {error.message}")
        for there in self._assets(draft):
            if there["name"] == asset.name:
                if self.is_good(there):
                    return True
                self._delete_asset(int(there["id"]))
        if not self.client.retry(attempt, error):
            raise error
        return False

    def _delete_asset(self, number: int) -> None:
        """Remove an asset of our own draft; from the attempt on it counts as gone."""
        with self._lock:
            self._doomed.add(number)
        self._delete(f"{self.path}/assets/{number}")

    def _delete(self, path: str) -> None:
        try:
            self.client.request("DELETE", path)
        except GitHubError as error:
            if error.status != 404:  # somebody else, or an earlier try, was faster
                raise

    # --- the end ----------------------------------------------------------------

    def _publish(self, draft: Json) -> Json:
        """Make a verified draft visible.

        Raises:
            Vanished: The draft is gone, or the tag has been published meanwhile.
        """
        found = self.look()
        if found.published is not None:
            raise Vanished(f"{self.plan.tag} was published meanwhile")
        latest = is_latest(parse_tag(self.plan.tag), found.published_tags)
        fields = {
            **self._fields(),
            "body": self.plan.notes,
            "draft": False,
            "make_latest": "true" if latest else "false",
        }
        try:
            release = self._edit(draft, fields)
        except GitHubError as error:
            if "already_exists" in error.codes:
                raise Vanished(f"{self.plan.tag} was published meanwhile") from None
            raise
        names = {str(asset["name"]) for asset in release["assets"] if self.is_good(asset)}
        if release["draft"] or names != set(self.expected):
            raise PipelineError(
                f"{release['html_url']} is not what was verified just before.",
                "Somebody else changed it at the same moment; run it again.",
            )
        return release

    def _tidy(self, drafts: Sequence[Json], release: Json) -> None:
        """Remove the other drafts of the published tag: they cannot be published any more.

        The notes of a draft that was not made here are kept in a file, and one that
        holds files of its own is left alone.
        """
        for draft in drafts:
            if draft["id"] == release["id"]:
                continue
            if read_mark(draft["body"]) is None:
                foreign = {str(asset["name"]) for asset in draft["assets"]} - set(self.expected)
                if foreign:
                    names = ", ".join(sorted(foreign))
                    warn(f"The draft {draft['html_url']} is left: it holds {names}.")
                    continue
                self._keep_notes(draft)
            say(f"removing the draft {draft['id']} of {self.plan.tag}")
            self._delete(f"{self.path}/{draft['id']}")

    def _keep_notes(self, draft: Json) -> None:
        if (draft["body"] or "").strip():
            self.kept.mkdir(parents=True, exist_ok=True)
            path = self.kept / f"draft-{draft['id']}.md"
            path.write_text(str(draft["body"]), encoding="utf-8")
            warn(f"A draft's notes, perhaps written by hand, are kept in {path}.")
