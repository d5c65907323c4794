// What WeChat puts into every page that it shows: WeixinJSBridge, its user agent, and the app around the page.
// The app is the page that shows this frame; the two speak by postMessage and know each other's address.

(() => {
  if (window.WeixinJSBridge || window.parent === window) return;
  const app = document.currentScript.dataset.app;
  const waiting = new Map();
  let asked = 0;

  const tell = (message) => window.parent.postMessage({ wechat: true, ...message }, app);

  function ask(message) {
    asked += 1;
    const id = asked;
    return new Promise((resolve) => {
      waiting.set(id, resolve);
      tell({ ...message, id });
    });
  }

  window.addEventListener("message", (event) => {
    if (event.source !== window.parent || event.origin !== app || !event.data?.wechat) return;
    if (event.data.kind === "answer" && waiting.has(event.data.id)) {
      waiting.get(event.data.id)(event.data.value);
      waiting.delete(event.data.id);
    }
    if (event.data.kind === "go") window.location.replace(event.data.path);
    if (event.data.kind === "reload") window.location.reload();
  });

  const here = () => `${location.pathname}${location.search}`;
  const report = () => tell({ kind: "page", path: here(), title: document.title });

  // Every navigation passes through here, also within one page.
  for (const name of ["pushState", "replaceState"]) {
    const original = history[name].bind(history);
    history[name] = (...values) => {
      original(...values);
      report();
    };
  }
  window.addEventListener("popstate", report);
  window.addEventListener("pageshow", report);
  document.addEventListener("DOMContentLoaded", () => {
    report();
    const title = document.querySelector("title");
    if (title) new MutationObserver(report).observe(title, { childList: true });
    window.addEventListener("beforeunload", () => tell({ kind: "leaving" }));
  });

  // A webview has one window, and here nothing lies behind a foreign address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || event.defaultPrevented) return;
    const url = new URL(link.href, location.href);
    if (url.protocol === "tel:") {
      event.preventDefault();
      tell({ kind: "call", number: url.pathname });
    } else if (url.protocol.startsWith("http") && url.origin !== location.origin) {
      event.preventDefault();
      tell({ kind: "outside", host: url.host });
    } else if (link.target && link.target !== "_self") {
      event.preventDefault();
      location.assign(link.href);
    }
  });

  async function invoke(name, values, done = () => {}) {
    if (name === "getBrandWCPayRequest") {
      const { result } = await ask({ kind: "pay", params: values });
      done({ err_msg: `get_brand_wcpay_request:${result}` });
    } else if (name === "scanQRCode") {
      const { result } = await ask({ kind: "scan", opens: values?.needResult !== 1 });
      done(result === null ? { err_msg: "scan_qrcode:cancel" } : { err_msg: "scan_qrcode:ok", resultStr: result });
    } else if (name === "preVerifyJSAPI") {
      const { refused } = await ask({ kind: "config", config: values });
      done(refused ? { err_msg: `config:fail,${refused}` } : { err_msg: "preVerifyJSAPI:ok" });
    } else if (name === "getNetworkType") {
      done({ err_msg: "network_type:fail", networkType: "4g" });
    } else if (name === "closeWindow") {
      tell({ kind: "close" });
      done({ err_msg: "close_window:ok" });
    } else {
      done({ err_msg: `${name}:ok` });
    }
  }

  window.WeixinJSBridge = {
    invoke: (name, values, done) => {
      invoke(name, values, done);
    },
    call: (name) => {
      invoke(name, {});
    },
    on: () => {},
    log: () => {},
  };
  const agent = /MicroMessenger/i.test(navigator.userAgent)
    ? navigator.userAgent
    : `${navigator.userAgent} MicroMessenger/8.0.50(0x18003237) NetType/4G Language/zh_CN`;
  Object.defineProperty(navigator, "userAgent", { get: () => agent });
  window.__wxjs_environment = "browser";
  const ready = () => document.dispatchEvent(new Event("WeixinJSBridgeReady"));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else setTimeout(ready);
})();
