#!/usr/bin/env node
// A browser's client: grpc-web's own runtime, running in jsdom, whose XMLHttpRequest
// asks for CORS and hides headers as a browser does.
//
//   dispatch.js PROTO GRPC_URL RECORD
//
// Dispatches in text mode (base64) and in binary mode, reads the metadata that a page
// may see, is refused as it must be, and adds what was acknowledged to RECORD, one JSON
// line each. Called by the test; exit code 0: all was as it must be.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const http = require("node:http");
const { JSDOM } = require("jsdom");
const protobuf = require("protobufjs");

const [proto, address, record] = process.argv.slice(2);
const SITE = "https://shop.example";
const METHOD = "/event.EventService/dispatch";
setTimeout(() => process.exit(124), 60_000).unref();

// The page, from another site than the collector's. grpc-web finds the browser's
// parts in the global scope.
const { window } = new JSDOM("", { url: `${SITE}/product/1` });
const requests = [];
globalThis.XMLHttpRequest = class extends window.XMLHttpRequest {
  setRequestHeader(name, value) {
    if (name.toLowerCase() === "content-type") requests.push(value);
    super.setRequestHeader(name, value);
  }
};
const grpcWeb = require("grpc-web");

const root = new protobuf.Root();
root.loadSync(proto, { keepCase: true });
const Events = root.lookupType("event.Events");
const Response = root.lookupType("event.Response");

const descriptor = new grpcWeb.MethodDescriptor(
  METHOD,
  "unary",
  Object,
  Object,
  (request) => Events.encode(request).finish(),
  (bytes) => Response.toObject(Response.decode(new Uint8Array(bytes)), { defaults: true }),
);

// Calls; the answer with the metadata that the page could read.
function call(format, message) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  return new Promise((resolve, reject) => {
    const answer = { metadata: {} };
    const stream = client.rpcCall(address + METHOD, Events.fromObject(message), {}, descriptor, (error, response) => {
      if (error) reject(error);
      answer.response = response;
    });
    stream.on("metadata", (metadata) => Object.assign(answer.metadata, metadata));
    stream.on("status", (status) => {
      answer.status = status;
      if (status.code === 0) resolve(answer);
    });
  });
}

function batch(prefix) {
  return {
    header: { deviceId: "browser", userId: "-9223372036854775808", os: "веб", currentURL: `${SITE}/ü` },
    events: [
      { id: `${prefix}-1`, timestamp: "1700000000123", testEvent: { testParam1: "🛍️ \"q\"", testParam2: "9223372036854775807" } },
      {
        id: `${prefix}-2`,
        timestamp: "1700000000456",
        currentURL: `${SITE}/own`,
        widgetElementViewEvent: { price: 499.99, recoInfoKV: { "a.b": "ключ", "": "x" }, isOOS: true },
      },
      { id: `${prefix}-3`, timestamp: "1700000000789", streamEnterEvent: { productIds: ["1", "9007199254740993", "-1"] } },
    ],
  };
}

// What a browser asks before it lets a page call.
function preflight() {
  const headers = {
    Origin: SITE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,x-grpc-web,x-user-agent",
  };
  return new Promise((resolve, reject) => {
    http.request(address + METHOD, { method: "OPTIONS", headers }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer));
    }).on("error", reject).end();
  });
}

function list(text) {
  return (text ?? "").toLowerCase().split(",").map((part) => part.trim());
}

async function main() {
  const { statusCode, headers } = await preflight();
  assert.equal(statusCode, 200);
  assert.equal(headers["access-control-allow-origin"], SITE);
  assert.ok(list(headers["access-control-allow-methods"]).includes("post"));
  for (const name of ["content-type", "x-grpc-web", "x-user-agent"]) {
    assert.ok(list(headers["access-control-allow-headers"]).includes(name), name);
  }

  let last = 0;
  for (const [format, type] of [["text", "application/grpc-web-text"], ["binary", "application/grpc-web+proto"]]) {
    const message = batch(format);
    const { response, metadata, status } = await call(format, message);
    assert.equal(requests.at(-1), type);
    assert.deepEqual(response, { status: "SUCCESS", message: "" });
    assert.equal(status.code, 0);
    assert.match(metadata["x-holdfast-host"] ?? "", /^[0-9a-f]{32}$/);
    assert.equal(Number(metadata["x-holdfast-seq"]), last + 1);
    last += 1;
    const bytes = Buffer.from(Events.encode(Events.fromObject(message)).finish());
    const line = { host: metadata["x-holdfast-host"], seq: last, batch: bytes.toString("base64") };
    fs.appendFileSync(record, JSON.stringify(line) + "\n");

    for (const incomplete of [{ ...message, header: { os: "web" } }, { events: message.events }]) {
      const refusal = await call(format, incomplete).then(() => assert.fail("was taken"), (error) => error);
      assert.equal(refusal.code, grpcWeb.StatusCode.INVALID_ARGUMENT, refusal);
      assert.equal(refusal.message, "Incomplete event");
      // Kept for diagnosis.
      last += 1;
    }
  }
  console.log(`dispatched in ${requests.length} calls`);
  window.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
