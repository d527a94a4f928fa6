from .codec import (
    EventTypes,
)
from .commands.handler import (
    CommandHandler,
)
from .concurrency.tasks import (
    end,
)
from .concurrency.turns import (
    Turns,
)
from .concurrency.watermark import (
    Watermark,
)
from .decider import (
    Decider,
    Outcome,
    Plan,
)
from .epochs import (
    EPOCH_STREAM,
    FIRST_EPOCH,
    begin_epoch,
    check_epoch,
    check_past,
    find_loss,
    mark_of,
    next_epoch,
    on_wire,
)
from .error_messages import (
    error_text,
)
from .errors import (
    Conflict,
    EventTooLarge,
    Kind,
    LogLost,
    LogRewritten,
    Loss,
    Rejected,
    StoreUnavailable,
    TooManyEvents,
    UnknownEventType,
    UnsafeStore,
)
from .event import (
    MAX_APPEND_EVENTS,
    MAX_EVENT_BYTES,
    KnownPosition,
    Metadata,
    NewEvent,
    RecordedEvent,
)
from .files import (
    replace_durably,
    sync_directory,
    try_lock,
)
from .follower import (
    run_follower,
)
from .ids import (
    new_id,
)
from .memory import (
    MemoryStore,
)
from .projections.database import (
    Database,
)
from .projections.generations import (
    Generations,
)
from .projections.projector import (
    Projection,
    Projector,
)
from .projections.snapshots.schedule import (
    SnapshotKeeper,
)
from .projections.snapshots.store import (
    Snapshots,
)
from .projections.statements import (
    Query,
    Row,
    compile_positional,
    execute_many,
    fetch_all,
    fetch_each,
    insert_rows,
)
from .projections.tables import (
    POSITION,
    TIME,
    USED_BY_APPLY,
    event_at_or_before,
    moment_of,
    position_of,
)
from .store import (
    EventStore,
)
from .tail import (
    Batch,
    FollowerTooSlow,
    Tail,
    replay,
    replay_turns,
)

__all__ = [
    "EPOCH_STREAM",
    "FIRST_EPOCH",
    "MAX_APPEND_EVENTS",
    "MAX_EVENT_BYTES",
    "POSITION",
    "TIME",
    "USED_BY_APPLY",
    "Batch",
    "CommandHandler",
    "Conflict",
    "Database",
    "Decider",
    "EventStore",
    "EventTooLarge",
    "EventTypes",
    "FollowerTooSlow",
    "Generations",
    "Kind",
    "KnownPosition",
    "LogLost",
    "LogRewritten",
    "Loss",
    "MemoryStore",
    "Metadata",
    "NewEvent",
    "Outcome",
    "Plan",
    "Projection",
    "Projector",
    "Query",
    "RecordedEvent",
    "Rejected",
    "Row",
    "SnapshotKeeper",
    "Snapshots",
    "StoreUnavailable",
    "Tail",
    "TooManyEvents",
    "Turns",
    "UnknownEventType",
    "UnsafeStore",
    "Watermark",
    "begin_epoch",
    "check_epoch",
    "check_past",
    "compile_positional",
    "end",
    "error_text",
    "event_at_or_before",
    "execute_many",
    "fetch_all",
    "fetch_each",
    "find_loss",
    "insert_rows",
    "mark_of",
    "moment_of",
    "new_id",
    "next_epoch",
    "on_wire",
    "position_of",
    "replace_durably",
    "replay",
    "replay_turns",
    "run_follower",
    "sync_directory",
    "try_lock",
]
