"""Snapshots in Redis, shared by all workers.

Keys, with ids hashed as those of sessions are:

    kimi:{caller}:snapshots       when each of the caller's snapshots was saved (sorted set, ms)
    kimi:{caller}:snapshot:ID     the document
"""

from app.sessions.base import SnapshotKey
from app.sessions.redis.bounded_client import BoundedRedis, digest, milliseconds
from app.sessions.redis.scripts import FORGET, KEEP


class RedisSnapshotStore:
    """A `SnapshotStore` that all workers share.

    Args:
        server: The client, which its owner opens and closes.
        max_snapshots_per_caller: Beyond this number, a caller's oldest snapshots are deleted.
        time_to_live: Seconds that each is stored.
        key_prefix: The first part of every key.
    """

    def __init__(
        self, server: BoundedRedis, *, max_snapshots_per_caller: int, time_to_live: float, key_prefix: str
    ) -> None:
        self._server = server
        self._max_snapshots = max_snapshots_per_caller
        self._time_to_live = time_to_live
        self._prefix = key_prefix

    async def load(self, key: SnapshotKey) -> bytes | None:
        """See `SnapshotStore.load`."""
        (data,) = await self._server.get([self._snapshots(key) + digest(key.snapshot_id)])
        return data

    async def save(self, key: SnapshotKey, data: bytes) -> None:
        """See `SnapshotStore.save`."""
        snapshots, member = self._snapshots(key), digest(key.snapshot_id)
        arguments = (data, milliseconds(self._time_to_live), member, self._max_snapshots, snapshots)
        await self._server.run(KEEP, [snapshots + member, self._index(key)], *arguments)

    async def delete(self, key: SnapshotKey) -> bool:
        """See `SnapshotStore.delete`."""
        member = digest(key.snapshot_id)
        return bool(await self._server.run(FORGET, [self._snapshots(key) + member, self._index(key)], member))

    def _snapshots(self, key: SnapshotKey) -> str:
        return f"{self._prefix}:{{{digest(key.caller_id)}}}:snapshot:"

    def _index(self, key: SnapshotKey) -> str:
        return f"{self._prefix}:{{{digest(key.caller_id)}}}:snapshots"
