"""Every time of the protocol, in seconds, and how they add up: each rank ends within its timeout and `PROMISE`."""

PROMISE = 2.0
"""After its own deadline, a rank has ended with an error or is in the group."""

# While ranks are awaited.
BEAT = 0.5
"""Between two looks of rank 0 at the reports."""
GRACE = 1.0
"""A first inconsistency waits for the other ranks, so that the odd one can be told."""
SILENCE = 5.0
"""Without a sign of life of rank 0 or its store, it counts as lost; it answers a single rank in that time."""
LOOK = 2.0
"""Between two looks of a waiting rank whether rank 0 still lives."""
IMPORTING = 0.5
"""A rank that imports torch looks around this often, in less than a bad verdict is served; first it tells rank 0."""
UNRECORDED = 5.0
"""A store without a record of ours counts as somebody else's, and an agent that is not there as gone."""

HOLDER = 1.5
"""Rank 0 finds out who holds its port."""
RETURN = 1.5
"""A connection to the given address takes to come back to rank 0 itself."""

# After the deadline: rank 0's verdict.
CALL_LATEST = 0.5
"""A rank still waits to be called: rank 0's clock began a little later."""
VERDICT_LATEST = 0.9
"""A rank still waits for the verdict."""
LAST_WORD = 0.5
"""A rank that has given up lets rank 0, which it wakes by that, judge before it judges alone."""
LATE_ACKNOWLEDGE = 0.4
"""Rank 0 looks who of those that reported is still there, when others are missing."""
ACKNOWLEDGE, ACKNOWLEDGE_LATEST = 4.0, 0.6
"""The same where all have reported: at most, and at most this long after its deadline."""
CROWD = 8192
"""So many ranks can acknowledge in that time on a slow host; more have longer."""
LINGER, LINGER_LATEST = 2.0, 0.8
"""Rank 0 serves a bad verdict, at most, and at most this long after its deadline."""

# After the deadline: the process group.
TICK = 1.0
"""Between two looks of a rank while its group is made."""
PULSE = 3
"""Ticks between two looks whether ranks that are not connected still tick, which rank 0 takes until it is connected."""
WATCHES = 2
"""Ranks that take these looks from then on: either finds the other dead."""
CONNECT_LATEST = 1.0
"""A connect may still end."""
LOOKERS = 2
"""Ranks that look who is silent where connects failed: either may die."""
SEEN, SEEN_LATEST = 1.5, 1.2
"""They wait for the others to connect or fail, at most, and at most this long after their deadline."""
HEARD = 2.0
"""The others wait for what they find."""
PART, PART_LATEST = 1.5, 1.6
"""A rank whose group failed waits for the others to read why, at most, and at most this long after its deadline."""

# Leaving.
CUT, CUT_LEAST = 1.0, 0.3
"""Torch's calls take to end when they are cut off: at most, until so long after the deadline, and at least."""
FAREWELL = 0.5
"""A rank that is stopped takes to tell the others."""
REPORT_FAILURE = 5.0
"""A rank with an error of its own takes to reach the others."""
CLOSE = 5.0
"""Rank 0 keeps its store for ranks that close later."""
LATER = 5.0
"""Who serves the directory tells those who come later that rank 0 has gone."""

# One request.
ANSWER = 5.0
"""A store answers a request that it need not wait for."""
ANSWER_LATEST, ANSWER_LEAST = 1.0, 0.3
"""After the deadline, a store may take this long; a request always has the least."""
PATIENCE = 60.0
"""Torch's own calls may take beyond the timeout: ours are the ones that report."""
START = 0.5
"""Torch takes to say that its store is made; it serves before."""
ANNOUNCE = 1.0
"""The directory takes to tell rank 0 its own address, when all ranks have learned it there."""

ENDS: dict[str, float] = {
    "a rank that is not called": CALL_LATEST + LAST_WORD + ANSWER_LEAST,
    "a rank that hears no verdict": VERDICT_LATEST + LAST_WORD + ANSWER_LEAST,
    "rank 0 that misses ranks": LATE_ACKNOWLEDGE + LINGER_LATEST,
    "rank 0 that loses ranks": ACKNOWLEDGE_LATEST + LINGER_LATEST,
    "a group that is not made in time": PART_LATEST + CUT_LEAST,
    "a store that stops answering": ANSWER_LATEST + ANSWER_LEAST,
    "a rank that fails by itself": FAREWELL,
}
"""The ways in which a rank ends after its deadline, each with the seconds that it takes at most."""
