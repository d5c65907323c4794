// The part of WeChat's JS-SDK that pages of a hospital use, with the answers and the refusals of the real one.

(() => {
  if (window.wx?.config) return;
  const bridge = window.WeixinJSBridge;
  const NEEDS_CONFIG = new Set(["scanQRCode", "chooseWXPay", "getLocation", "chooseImage"]);
  let allowed = new Set();
  let state = "new"; // "new" | "ready" | "failed"
  let failure = null;
  let onError = () => {};
  const whenReady = [];

  function invoke(name, values, done) {
    if (bridge) bridge.invoke(name, values, done);
    else done({ err_msg: `${name}:fail` });
  }

  // Answers as the SDK does: success, fail or cancel, then complete, each with errMsg.
  function answer(api, options, word, more = {}) {
    const value = { errMsg: `${api}:${word}`, ...more };
    if (word === "ok") options.success?.(value);
    else if (word === "cancel") options.cancel?.(value);
    else options.fail?.(value);
    options.complete?.(value);
  }

  function permitted(api, options) {
    if (!NEEDS_CONFIG.has(api) || (state === "ready" && allowed.has(api))) return true;
    answer(api, options, "fail, the permission value is offline verifying");
    return false;
  }

  const wx = {
    config(config) {
      invoke("preVerifyJSAPI", config, ({ err_msg: said }) => {
        if (said === "preVerifyJSAPI:ok") {
          state = "ready";
          allowed = new Set(config.jsApiList ?? []);
          for (const then of whenReady.splice(0)) then();
        } else {
          state = "failed";
          failure = { errMsg: said };
          onError(failure);
          for (const then of whenReady.splice(0)) then(); // the real one also calls ready
        }
      });
    },
    ready(then) {
      if (state === "new") whenReady.push(then);
      else then();
    },
    error(then) {
      onError = then;
      if (failure) then(failure);
    },
    checkJsApi(options) {
      const known = Object.fromEntries((options.jsApiList ?? []).map((api) => [api, api in wx]));
      answer("checkJsApi", options, "ok", { checkResult: known });
    },
    scanQRCode(options = {}) {
      if (!permitted("scanQRCode", options)) return;
      invoke("scanQRCode", options, (said) => {
        if (said.err_msg === "scan_qrcode:ok") answer("scanQRCode", options, "ok", { resultStr: said.resultStr });
        else answer("scanQRCode", options, "cancel");
      });
    },
    chooseWXPay(options) {
      if (!permitted("chooseWXPay", options)) return;
      const params = { ...options, timeStamp: String(options.timestamp ?? options.timeStamp) };
      invoke("getBrandWCPayRequest", params, ({ err_msg: said }) => {
        answer("chooseWXPay", options, said.split(":")[1]);
      });
    },
    closeWindow: () => invoke("closeWindow", {}, () => {}),
    getNetworkType: (options) => answer("getNetworkType", options, "ok", { networkType: "4g" }),
    miniProgram: { getEnv: (then) => then({ miniprogram: false }), navigateTo: () => {}, postMessage: () => {} },
  };
  for (const api of [
    "hideOptionMenu", "showOptionMenu", "hideMenuItems", "showMenuItems", "hideAllNonBaseMenuItem",
    "showAllNonBaseMenuItem", "updateAppMessageShareData", "updateTimelineShareData", "onMenuShareAppMessage",
    "onMenuShareTimeline",
  ]) {
    wx[api] = (options = {}) => answer(api, options, "ok");
  }
  window.wx = wx;
  window.jWeixin = wx;
})();
