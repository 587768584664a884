"""Users, their tokens, and the permissions of each token."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hubtune.testing.hub.refusals import Anonymous, BadToken, Forbidden, Gated, NoSuchRepo, Unacceptable
from hubtune.testing.hub.storage.store import Repo, write_json

Role: TypeAlias = Literal["read", "write", "fineGrained"]


@dataclass(frozen=True)
class Token:
    """A token of a user. `scope` is for fineGrained ones: the namespaces and repo ids it may write to."""

    value: str
    user: str
    role: Role
    name: str
    scope: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request: a token and the namespaces its user belongs to, or nobody."""

    token: Token | None = None
    namespaces: frozenset[str] = frozenset()

    @property
    def user(self) -> str:
        """The user's name; asking for it refuses anonymous callers."""
        if self.token is None:
            raise Anonymous("Invalid username or password.")
        return self.token.user

    def may_see(self, repo: Repo) -> bool:
        """Return whether the repo exists for this caller."""
        return not repo.private or (repo.namespace in self.namespaces and self._in_scope(repo.id))

    def check_seen(self, repo: Repo) -> None:
        """Refuse as if there were no such repo, so that nobody learns of private ones."""
        if not self.may_see(repo):
            raise NoSuchRepo(f"{repo.kind.capitalize()} '{repo.id}' not found.")

    def check_read(self, repo: Repo) -> None:
        """Refuse those who have not passed the repo's gate."""
        if not repo.gated or repo.namespace in self.namespaces:
            return
        if self.token is None:
            raise Gated(f"Access to {repo.kind} {repo.id} is restricted. You must be authenticated to access it.")
        if self.token.user not in repo.let_in:
            raise Gated(f"Access to {repo.kind} {repo.id} is restricted and you are not in the authorized list.")

    def check_write(self, repo_id: str) -> None:
        """Refuse those who may not write to this repo, or create it."""
        user, namespace = self.user, repo_id.rpartition("/")[0]
        self._check_role()
        if namespace not in self.namespaces or not self._in_scope(repo_id):
            whose = f"under the namespace '{namespace}'" if namespace else f"to '{repo_id}', which has no namespace"
            raise Forbidden(f"You ('{user}') don't have the rights to write {whose}. A pull request may be possible.")

    def check_propose(self, repo: Repo) -> None:
        """Refuse those who may not open a pull request: everybody with a writing token may, on what they can see."""
        self.check_seen(repo)
        self._check_role()
        if not self._in_scope(repo.id):
            raise Forbidden(f"The token '{self._name}' is fine-grained and does not cover '{repo.id}'.")

    def _check_role(self) -> None:
        _ = self.user
        if self.token is not None and self.token.role == "read":
            raise Forbidden(f"The token '{self._name}' has the role 'read'; this needs a token with the role 'write'")

    def _in_scope(self, repo_id: str) -> bool:
        if self.token is None or self.token.role != "fineGrained":
            return True
        return repo_id in self.token.scope or repo_id.rpartition("/")[0] in self.token.scope

    @property
    def _name(self) -> str:
        return self.token.name if self.token else ""


@dataclass
class _Records:
    users: dict[str, list[str]] = field(default_factory=dict)  # name -> organisations
    orgs: list[str] = field(default_factory=list)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)


class Accounts:
    """The users, organisations and tokens of one Hub, kept in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = _Records(**json.loads(path.read_text("utf-8"))) if path.exists() else _Records()

    def add_user(self, name: str, orgs: tuple[str, ...] = ()) -> None:
        """A user and the organisations it is a member of; a second call adds memberships."""
        if name in self._records.orgs:
            raise Unacceptable(f"'{name}' is an organisation.")
        for org in orgs:
            self.add_org(org)
        known = self._records.users.setdefault(name, [])
        known.extend(org for org in orgs if org not in known)
        self._save()

    def add_org(self, name: str) -> None:
        """An organisation, without members yet."""
        if name in self._records.users:
            raise Unacceptable(f"'{name}' is a user.")
        if name not in self._records.orgs:
            self._records.orgs.append(name)
            self._save()

    def add_namespace(self, name: str) -> None:
        """Make sure that somebody owns this name."""
        if name and name not in self._records.users:
            self.add_org(name)

    def add_token(self, user: str, role: Role, name: str = "", value: str = "", scope: tuple[str, ...] = ()) -> Token:
        """A token for a user, who is made if need be."""
        self.add_user(user)
        token = Token(value or f"hf_{secrets.token_hex(17)}", user, role, name or f"{user}-{role}", tuple(scope))
        self._records.tokens[token.value] = asdict(token)
        self._save()
        return token

    def token_of(self, user: str, role: Role) -> Token:
        """The first token of that user and role, made if there is none: the same one after a restart."""
        for data in self._records.tokens.values():
            if (data["user"], data["role"]) == (user, role):
                return _token(data)
        return self.add_token(user, role)

    def caller(self, value: str | None) -> Caller:
        """Return who sends this token."""
        if value is None:
            return Caller()
        if value not in self._records.tokens:
            raise BadToken("Invalid credentials in Authorization header")
        token = _token(self._records.tokens[value])
        return Caller(token, frozenset([token.user, *self._records.users[token.user]]))

    def whoami(self, caller: Caller) -> dict[str, Any]:
        """The answer to `hf auth whoami`."""
        user, token = caller.user, caller.token
        assert token is not None  # `caller.user` has refused anonymous callers
        access: dict[str, Any] = {"displayName": token.name, "role": token.role}
        if token.role == "fineGrained":
            permissions = ["repo.content.read", "repo.write", "discussion.write"]
            scoped = [{"entity": {"type": "user", "name": one}, "permissions": permissions} for one in token.scope]
            access["fineGrained"] = {"global": [], "scoped": scoped}
        orgs = [
            {"type": "org", "name": org, "fullname": org, "isEnterprise": False} for org in self._records.users[user]
        ]
        about = {
            "type": "user",
            "id": user,
            "name": user,
            "fullname": user,
            "email": f"{user}@localhost",
            "isPro": False,
        }
        return {**about, "emailVerified": True, "orgs": orgs, "auth": {"type": "access_token", "accessToken": access}}

    def _save(self) -> None:
        write_json(self._path, asdict(self._records))


def _token(data: dict[str, Any]) -> Token:
    return Token(**{**data, "scope": tuple(data["scope"])})
