// The product's patient API as the mini program calls it: its own session token, one Idempotency-Key for each wish.

import { post } from "./api.js";
import { wait } from "./dom.js";

const BASE = "/phone-api/api/v1";
const CONSENT_VERSION = "2026-01";
const ASKING_TIMES_MAX = 30;

// What the product refused, in its own words.
export class Refused extends Error {
  constructor(status, error) {
    super(error.message || "手机连不上医院缴费服务，没有扣款。请稍后再试。");
    this.status = status;
    this.code = error.code || "no_network";
    this.values = error;
  }
}

export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Product {
  constructor(world, person) {
    this.world = world;
    this.person = person;
    this.token = "";
  }

  async signIn() {
    const { code } = await post("phone/login-code", { person: this.person.key });
    const { world } = this;
    const answer = await this.#send("POST", "/sessions", {
      institution: world.institution,
      app_id: world.miniprogram_app_id,
      code,
    });
    this.token = answer.token;
  }

  async patients() {
    return (await this.#call("GET", "/patients")).patients;
  }

  async bind({ name, type, value }) {
    const { code } = await post("phone/phone-code", { person: this.person.key });
    return this.#call("POST", "/patients", {
      name,
      identifier: { type, value },
      phone_code: code,
      consent: { version: CONSENT_VERSION, agreed: true },
    });
  }

  unbind(patientId) {
    return this.#call("DELETE", `/patients/${encodeURIComponent(patientId)}`);
  }

  bills(patientId) {
    return this.#asked(`/patients/${encodeURIComponent(patientId)}/bills`);
  }

  bill(patientId, branch, billId) {
    const path = [patientId, "bills", branch || "-", billId].map(encodeURIComponent).join("/");
    return this.#asked(`/patients/${path}`);
  }

  methods(patientId) {
    return this.#call("GET", `/patients/${encodeURIComponent(patientId)}/methods`);
  }

  paid(patientId) {
    return this.#call("GET", `/patients/${encodeURIComponent(patientId)}/paid`);
  }

  counts(patientId) {
    return this.#call("GET", `/patients/${encodeURIComponent(patientId)}/counts`);
  }

  startPayment(wish, key) {
    return this.#call("POST", "/payments", wish, { "idempotency-key": key });
  }

  payment(orderNo) {
    return this.#call("GET", `/payments/${encodeURIComponent(orderNo)}`);
  }

  cancelPayment(orderNo) {
    return this.#call("POST", `/payments/${encodeURIComponent(orderNo)}/cancel`);
  }

  // "正在向医院查询": the hospital is slow, the ticket fetches its answer as soon as it is there.
  async #asked(path) {
    let answer = await this.#call("GET", path);
    for (let times = 0; answer.status === "asking" && times < ASKING_TIMES_MAX; times += 1) {
      this.onAsking?.(answer.message);
      await wait(answer.retry_after_seconds * 1000);
      answer = await this.#call("GET", `${path}?ticket=${encodeURIComponent(answer.ticket)}`);
    }
    return answer;
  }

  // A session that has run out (the clock can be moved by days) is renewed once, as the real app does.
  async #call(method, path, body, headers = {}) {
    if (!this.token) await this.signIn();
    try {
      return await this.#send(method, path, body, headers);
    } catch (error) {
      if (error.code !== "not_signed_in") throw error;
      await this.signIn();
      return this.#send(method, path, body, headers);
    }
  }

  async #send(method, path, body, headers = {}) {
    const response = await fetch(BASE + path, {
      method,
      cache: "no-store",
      headers: {
        accept: "application/json",
        "accept-language": this.person.language,
        // The console takes nothing but JSON; the product takes no body where it needs none.
        ...(method === "POST" ? { "content-type": "application/json" } : {}),
        ...(this.token ? { authorization: `Bearer ${this.token}` } : {}),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    }).catch(() => null);
    if (response === null) throw new Refused(0, {});
    const value = await response.json().catch(() => ({}));
    if (!response.ok) throw new Refused(response.status, value.error || {});
    return value;
  }
}
