"""Delays between retries, and the list of every layer that retries.

1. Connection. While an archive cannot be reached, the circuit breaker (``scheduling``) probes it from one
   thread. When the archive answers, the interrupted operation runs again. An operation that loses its
   association ``MAX_FRUITLESS_ROUNDS`` times fails; ``give_up_after`` ends the probing.
2. Query. The circuit breaker repeats a query that the archive answered with a failure, three times at most.
   Such an answer needs a working connection, so one failure starts either layer 1 or layer 2.
3. Retrieval round. The retry policy (``extraction``) requests what is still missing, in narrower parts.
   ``MAX_FRUITLESS_ROUNDS`` rounds without a new instance end the task. Layers 1 and 2 do not repeat a
   retrieval that has started: its failure is the result of the round.
4. Task. A task that has to wait goes back to the ledger. The ledger counts the fruitless rounds of layer 3
   over all runs, so neither the wait nor a new run of the job starts a new count.
5. Job. The user runs the command again, or ``quarry retry``. Complete studies are not requested again.
6. Notification and on-complete command. The notifier (``jobs``) sends a message four times at most. The
   on-complete runner (``completion``) repeats a command for ``on_complete_patience`` seconds. Both have their
   own threads and repeat no query and no retrieval.

Every failure belongs to one layer, and layers 3 to 5 share one count. The numbers of tries do not multiply.
"""

from __future__ import annotations

#: Fruitless retrieval rounds in a row, counted over restarts, after which a task is given up; and lost
#: associations of one operation after which it fails.
MAX_FRUITLESS_ROUNDS = 6

#: Tries for one notification: a mail server that is down must not keep the job from its end.
_MAX_NOTIFICATION_TRIES = 4


def backoff(failures: int, jitter: float, *, initial: float = 5.0, maximum: float = 600.0) -> float:
    """Return the seconds to wait after this many failures in a row.

    The delay doubles from ``initial`` to ``maximum``. ``jitter`` from 0 to 1 spreads it by a quarter in both
    directions, so that several jobs do not retry at the same moment.
    """
    return min(maximum, initial * 2.0 ** max(0, failures - 1)) * (0.75 + jitter / 2)


def on_complete_retry_delay(tries: int, timeout: float, jitter: float) -> float | None:
    """Return the seconds until a command that failed ``tries`` times for a study runs again; None to give up.

    ``timeout`` is the time in seconds for which the command may go on to fail.
    """
    delays = (backoff(number, 0.5, initial=1.0) for number in range(1, tries))
    return None if sum(delays) >= timeout else backoff(tries, jitter, initial=1.0)


def notification_retry_delay(tries: int) -> float | None:
    """Return the seconds until a notification that failed ``tries`` times is sent again; None to give up."""
    return None if tries >= _MAX_NOTIFICATION_TRIES else backoff(tries, 0.5, initial=1.0)
