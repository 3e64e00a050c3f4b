"""The broker dies and comes back: calls go on, the leader listens anew, and the plan is what it was."""

from __future__ import annotations

import asyncio

from controlplane.contract import command as commands
from tests.lab.commander import Commander
from tests.lab.lab import Lab
from tests.lab.layout import SERVICES
from tests.lab.world import tally


async def test_calls_go_on_without_a_broker_and_the_leader_comes_back_with_the_same_plan(daemons: Lab) -> None:
    async with Commander(daemons).listening() as before:
        await before.settled(within_s=30)
        await before.done(commands.Shift, service="claims", shares={"nanchang": 35, "chengdu": 65})
        await before.settled()
        known = before.plan
    assert known is not None

    await asyncio.to_thread(daemons.kill, "broker")
    calls = await asyncio.to_thread(daemons.world.place, SERVICES["claims"], count=20, rate=10.0, talk_ms=500)
    assert tally(calls) == {"agent": 20}
    assert abs(sum(call.talks[-1].agent.startswith("n") for call in calls) - 7) <= 1

    await asyncio.to_thread(daemons.start, "broker")
    async with Commander(daemons).listening() as after:
        await after.wait_for(
            "it leads under a new epoch",
            lambda: after.plan is not None and after.plan.key.authority > known.key.authority,
            within_s=40,
        )
        await after.settled(within_s=40)
        assert after.plan is not None
        assert after.plan.services == known.services
        await after.done(commands.Shift, service="claims", shares={"nanchang": 60, "chengdu": 40})
