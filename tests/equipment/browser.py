#!/usr/bin/env python3
"""Does what a reader of a page does, in a tab of a headless Chromium.

    browser.py PORT < STEPS

What for:    tests of what people see: the operators' page.
Called by:   tests/it/support/browser.rs, with the port of a Chromium that was started with
             --remote-debugging-port. STEPS is a JSON list; each step is one of
                 {"open": URL, "width": PX, "height": PX, "dark": BOOL}
                 {"until": JS, "seconds": N}   waits until it is true; fails with its value
                 {"value": JS}                 tells it
                 {"press": CSS}                clicks the element
                 {"picture": FILE}             the whole page as PNG
Guarantees:  stdout is one JSON document: {"values": [...], "complaints": [...],
             "requests": [...]}: what `value` told, what the browser logged as an error or
             warning (script errors, refusals of the content policy), and every address
             that was asked for. A step that fails ends it with exit code 1 and its reason
             on stderr. The tab is closed at the end.
"""

import asyncio
import base64
import json
import sys

import aiohttp

LIMIT_S = 30


class Tab:
    def __init__(self, socket):
        self.socket, self.waiting, self.next = socket, {}, 0
        self.complaints, self.requests = [], []

    async def listen(self):
        async for message in self.socket:
            said = json.loads(message.data)
            if "id" in said:
                self.waiting.pop(said["id"]).set_result(said)
            elif said["method"] == "Log.entryAdded":
                entry = said["params"]["entry"]
                if entry["level"] in ("warning", "error"):
                    self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
            elif said["method"] == "Runtime.exceptionThrown":
                thrown = said["params"]["exceptionDetails"]
                self.complaints.append(thrown.get("exception", {}).get("description") or thrown["text"])
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])

    async def call(self, method, **params):
        self.next += 1
        answer = asyncio.get_running_loop().create_future()
        self.waiting[self.next] = answer
        await self.socket.send_json({"id": self.next, "method": method, "params": params})
        said = await asyncio.wait_for(answer, LIMIT_S)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        return said["result"]

    async def value(self, script):
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise RuntimeError(f"{script}: {said['exceptionDetails']}")
        return said["result"].get("value")

    async def open(self, step):
        width, height = step["width"], step["height"]
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=2 if width < 600 else 1, mobile=width < 600)
        scheme = "dark" if step["dark"] else "light"
        await self.call("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": scheme}])
        said = await self.call("Page.navigate", url=step["open"])
        if said.get("errorText"):
            raise RuntimeError(f"{step['open']}: {said['errorText']}")

    async def until(self, step):
        try:
            async with asyncio.timeout(step["seconds"]):
                while not await self.value(f"Boolean({step['until']})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.value("document.body.innerText")
            raise RuntimeError(f"not within {step['seconds']} s: {step['until']}\n{text}") from None

    async def picture(self, step):
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(step["picture"], "wb") as file:
            file.write(base64.b64decode(said["data"]))


async def main(port, steps):
    base = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{base}/json/new?about:blank") as answer:
            target = await answer.json()
        try:
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listener = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                values = []
                for step in steps:
                    if "open" in step:
                        await tab.open(step)
                    elif "until" in step:
                        await tab.until(step)
                    elif "value" in step:
                        values.append(await tab.value(step["value"]))
                    elif "press" in step:
                        await tab.value(f"document.querySelector({json.dumps(step['press'])}).click()")
                    elif "picture" in step:
                        await tab.picture(step)
                    else:
                        raise RuntimeError(f"no such step: {step}")
                listener.cancel()
        finally:
            await (await session.get(f"{base}/json/close/{target['id']}")).release()
    return {"values": values, "complaints": tab.complaints, "requests": tab.requests}


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(main(int(sys.argv[1]), json.load(sys.stdin)))))
    except (RuntimeError, TimeoutError, aiohttp.ClientError) as failed:
        sys.exit(f"browser.py: {failed!r}" if not str(failed) else f"browser.py: {failed}")
