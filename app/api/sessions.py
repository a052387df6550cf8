"""`/v1/sessions`: what the gateway remembers, and how to make it forget."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.openapi import ErrorEnvelope, example
from app.domain.conversation import Session, SessionKey
from app.domain.errors import SessionNotFound
from app.sessions.base import SessionStore

# The session of the first example of a chat.
_SessionId = Annotated[str, example("docs")]


class SessionMessage(BaseModel):
    """A remembered message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class SessionSummary(BaseModel):
    """A session without its texts; times in seconds since the epoch."""

    id: str
    object: Literal["session"] = "session"
    created_at: int
    updated_at: int
    expires_at: int
    message_count: int
    characters: int


class SessionDetail(SessionSummary):
    """A session with its texts."""

    messages: list[SessionMessage]


class SessionList(BaseModel):
    """The caller's sessions, latest first."""

    object: Literal["list"] = "list"
    data: list[SessionSummary]


class SessionDeleted(BaseModel):
    """The session is gone."""

    id: str
    object: Literal["session.deleted"] = "session.deleted"
    deleted: Literal[True] = True


def sessions_router(store: SessionStore) -> APIRouter:
    """The session routes. Each caller sees its own sessions only."""
    not_found = {"model": ErrorEnvelope, "description": "`session_not_found`"}
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("", summary="List your sessions", response_model=SessionList)
    async def list_sessions(request: Request) -> SessionList:
        """All sessions of this API key."""
        sessions = await store.sessions_of(request.scope["context"].caller.id)
        return SessionList(data=[SessionSummary(**_facts(session, store)) for session in sessions])

    @router.get(
        "/{session_id:path}", summary="Read a session", response_model=SessionDetail, responses={404: not_found}
    )
    async def get_session(request: Request, session_id: _SessionId) -> SessionDetail:
        """A session with everything that is remembered of it."""
        session = await store.load(_key(request, session_id))
        if session is None:
            raise _missing()
        messages = [SessionMessage(role=message.role, content=message.text) for message in session.messages]
        return SessionDetail(messages=messages, **_facts(session, store))

    @router.delete(
        "/{session_id:path}",
        summary="Forget a session",
        response_model=SessionDeleted,
        responses={404: not_found, 409: {"model": ErrorEnvelope, "description": "`session_busy`"}},
    )
    async def delete_session(request: Request, session_id: _SessionId) -> SessionDeleted:
        """Forget a session, after the turn that may be running in it."""
        async with store.hold(_key(request, session_id)) as held:
            if not await held.delete():
                raise _missing()
        return SessionDeleted(id=session_id)

    return router


def _key(request: Request, session_id: str) -> SessionKey:
    return SessionKey(request.scope["context"].caller.id, session_id)


def _facts(session: Session, store: SessionStore) -> dict[str, object]:
    return {
        "id": session.id,
        "created_at": int(session.created_at),
        "updated_at": int(session.updated_at),
        "expires_at": int(session.updated_at + store.time_to_live),
        "message_count": len(session.messages),
        "characters": session.characters,
    }


def _missing() -> SessionNotFound:
    return SessionNotFound("No such session, or it has expired.")
