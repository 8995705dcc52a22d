"""Messages of apps: starts, launches through referral links, accounts, experiments.

Used by `plan`. Accounts and profiles refer to devices of launches, so `accounts` is
given the launches that were made.
"""

import time

from .message import Family
from .values import AGENTS, Draw, agent_columns, expect


def number_or_text(draw, value):
    """Ids that producers write either way."""
    return value if draw.chance(0.5) else str(value)


class AppInit(Family):
    queue, table, key = "app_init_event_q", "app_init_events", ["id"]
    missing = [["timestamp"]]
    wrong = [(["timestamp"], "soon"), (["userAccountId"], {}), (["deviceId"], ["d"])]
    refuse = (["clientId"], "client_id")

    def start(self, draw, n):
        """What starts of both kinds say."""
        agent, parts = draw.choice(AGENTS)
        ms = draw.instant_ms() if draw.chance(0.3) else draw.second_ms()
        user, account = draw.choice([None, draw.count()]), draw.choice([None, draw.count()])
        body = {
            "eventId": draw.uuid(),
            "headers": {"User-Agent": [agent], "X-Forwarded-For": [draw.address()], "X-ü": ["1", "2"]},
            "clientIp": draw.address(),
            "userAgent": agent,
            "timestamp": ms if ms % 1000 else ms // 1000,
            "userId": user,
            "deviceId": f"device-{n}-{draw.hex(8)}",
            "bbDeviceId": 10**15 + n,
            "userAccountId": account,
            "clientId": draw.text(30),
        }
        columns = {
            "id": body["eventId"],
            "event_timestamp": expect.time(ms),
            "insert_timestamp": expect.ANY,
            "client_ip": body["clientIp"],
            "user_agent": agent,
            "user_id": user and str(user),
            "device_id": body["deviceId"],
            "bb_device_id": str(body["bbDeviceId"]),
            "user_account_id": account and str(account),
            "client_id": body["clientId"],
            **agent_columns(parts),
        }
        return body, columns

    def make(self, draw, n):
        body, columns = self.start(draw, n)
        for name in ("userId", "userAccountId"):
            if body[name] is not None:
                body[name] = str(body[name])
            elif draw.chance(0.5):
                del body[name]
        body["userAccountId"] = body.get("userAccountId")
        body["bbDeviceId"] = str(body["bbDeviceId"])
        # Later set texts are seen in the copy as well: it is the same object.
        columns["event_data"] = expect.doc(body)
        return body, columns, {}


class LaunchRefer(AppInit):
    queue, table, key = "launch_refer_event_q", "launch_refer_events", ["id"]
    refuse = (["dynamicLink"], "dynamic_link")

    def make(self, draw, n):
        # Every tenth device starts twice: its first launch by id counts.
        device = Draw(f"device/{n - 1 if n % 10 == 1 else n}")
        body, columns = self.start(draw, n)
        kind, token = device.randint(0, 4), device.hex(8)
        body["deviceId"] = "" if kind == 0 else f"phone-{n - (n % 10 == 1)}-{token}"
        bb = None if kind == 1 else 2**53 + 1 + 2 * (n - (n % 10 == 1))
        body["bbDeviceId"] = "" if bb is None else number_or_text(draw, bb)
        link = draw.choice([None, "app://product/ü?x=1&y=2", ""])
        body.update(
            referralIdentifier=f"ref-{n}",
            dynamicLink=f"https://l.example/{draw.hex(6)}",
            deepLink=link,
        )
        columns.update(
            device_id=body["deviceId"],
            bb_device_id="" if bb is None else str(bb),
            referral_identifier=body["referralIdentifier"],
            dynamic_link=body["dynamicLink"],
            deep_link=link,
        )
        if link is None and draw.chance(0.5):
            del body["deepLink"]
        return body, columns, {}


def launches_by_device(messages):
    """The rows of each device, of devices whose launches are all good. Of the first half
    of the launches, so that a test can have those delivered before all else."""
    devices, spoiled = {}, set()
    for message in messages[: max(2, len(messages) // 20 * 10)]:
        outcome = message.outcomes[0]
        good = "rows" in outcome
        rows = outcome["rows"] if good else outcome["error"]["repaired"]["rows"]
        device = (rows[0]["row"]["device_id"], rows[0]["row"]["bb_device_id"])
        devices.setdefault(device, []).append(rows[0]["row"])
        if not good:
            spoiled.add(device)
    return {device: rows for device, rows in sorted(devices.items()) if device not in spoiled}


class Account(Family):
    """New accounts; rows only where a launch led to them."""

    queue, table, key = "create_user_account_q", "signup_referral_events", ["account_id"]
    missing = [["newEntry"], ["newEntry", "createdOn"], ["newEntry", "id"]]
    wrong = [(["newEntry", "createdOn"], "soon"), (["newEntry"], []), (["newEntry", "userId"], {})]
    refuse = (["newEntry", "userId"], "user_id")

    def __init__(self, launches):
        self.launches = launches
        self.devices = list(launches)

    def message(self, seed, n, way=None):
        # Broken ones are of known devices: of others nothing is written anyway.
        self.must_be_known = bool(way)
        return super().message(seed, n, way)

    def device(self, draw):
        """Headers, and the first launch of the device by id, if there is one."""
        if not self.must_be_known and draw.chance(0.2):
            stranger = draw.choice([{}, {"x-bb-deviceid": "404"}, {"x-bb-custom-deviceid": f"stranger-{draw.hex(6)}"}])
            return stranger, None
        custom, bb = device = draw.choice(self.devices)
        headers = {"x-bb-custom-deviceid": custom, "x-bb-deviceid": bb}
        if custom and bb and draw.chance(0.5):
            # One of the two is enough.
            del headers[draw.choice(sorted(headers))]
        headers = {name: value for name, value in headers.items() if value or draw.chance(0.5)}
        return headers, min(self.launches[device], key=lambda row: row["id"])

    def make(self, draw, n):
        headers, launch = self.device(draw)
        ms = draw.instant_ms()
        user = draw.count()
        entry = {
            "id": number_or_text(draw, 10**16 + n),
            "createdOn": ms if draw.chance(0.8) else ms // 1000,
            "clientId": "client-7",
            "clientAppType": draw.choice(["CUSTOMER", "HOST"]),
            "userId": number_or_text(draw, user),
            "socialAccounts": draw.choice([[], None]),
        }
        if entry["createdOn"] != ms:
            ms -= ms % 1000
        if launch is None:
            return {"newEntry": entry}, None, headers
        columns = {
            "id": expect.ANY,
            "signup_timestamp": expect.time(ms),
            "launch_timestamp": launch["event_timestamp"],
            "user_id": str(user),
            "device_id": headers.get("x-bb-custom-deviceid", ""),
            "bb_device_id": headers.get("x-bb-deviceid", ""),
            "account_id": str(entry["id"]),
            "referral_identifier": launch["referral_identifier"],
            "dynamic_link": launch["dynamic_link"],
            "deep_link": launch["deep_link"],
        }
        return {"oldEntry": None, "newEntry": entry}, columns, headers


class Profile(Account):
    """Completed profiles; also with followers."""

    queue, table = "event.account_profile_complete", "profile_completion_referral_events"
    missing = [["newEntry"], ["newEntry", "id"]]
    wrong = [(["newEntry", "socialAccounts"], {"platform": "INSTAGRAM"}), (["newEntry"], "entry")]

    def make(self, draw, n):
        body, columns, headers = super().make(draw, n)
        followers = draw.choice([2**53 + 1, 0, 1234, None])
        accounts = [{"platform": "YOUTUBE", "metrics": {"followers": 5}}]
        if followers is not None:
            accounts.insert(draw.randint(0, 1), {"platform": "INSTAGRAM", "metrics": {"followers": followers, "x": 0.5}})
        body["newEntry"]["socialAccounts"] = accounts
        if columns is not None:
            del columns["signup_timestamp"]
            now_ms = int(time.time() * 1000)
            columns["profile_completion_timestamp"] = expect.between(now_ms - 3_600_000, now_ms + 3_600_000)
            columns["insta_followers"] = followers
        return body, columns, headers


class Assignment(Family):
    queue, table, key = "ab_assignments", "ab_assignments", ["checksum"]
    missing = [["timestamp"], ["assignments"]]
    wrong = [(["newUser"], "perhaps"), (["ver"], "latest"), (["assignments"], ["a"]), (["timestamp"], "soon")]
    refuse = (["checksum"], "checksum")

    def make(self, draw, n):
        ms = draw.second_ms()
        user, device = draw.choice([None, draw.count()]), draw.choice([None, f"bb-{n}"])
        assignments = {f"experiment {draw.word()}": draw.choice(["control", "variant-ü"]), "flag": draw.choice(["on", 7])}
        version = draw.choice([None, "4.12.0"])
        body = {
            "timestamp": ms // 1000 if draw.chance(0.8) else ms,
            "userId": user,
            "bbDeviceId": device,
            "newUser": draw.chance(0.5),
            "version": version,
            "ver": draw.whole(),
            "checksum": f"{n}-{draw.hex(40)}",
            "assignments": assignments,
        }
        columns = {
            "timestamp": expect.time(ms),
            "user_id": user or 0,
            "bb_device_id": device or "",
            "new_user": int(body["newUser"]),
            "checksum": body["checksum"],
            "ver": body["ver"],
            "assignments": expect.doc(assignments | ({"app_version": version} if version else {})),
        }
        for name in ("userId", "bbDeviceId", "version"):
            if body[name] is None and draw.chance(0.5):
                del body[name]
        return body, columns, {}


def families():
    return [AppInit(), LaunchRefer(), Assignment()]


def accounts(launch_messages):
    launches = launches_by_device(launch_messages)
    return [Account(launches), Profile(launches)]
