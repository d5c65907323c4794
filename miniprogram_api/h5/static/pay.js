/* Opens WeChat's pay sheet. What the sheet says is never shown as paid: the hospital's server is asked. */
(function () {
  "use strict";
  var sheet = document.getElementById("sheet");
  var button = document.getElementById("sheet-button");
  if (!sheet || !button) {
    return;
  }
  var payment = document.getElementById("payment");
  var values = JSON.parse(sheet.getAttribute("data-values"));
  var texts = ["text", "checking", "closed", "outside"];
  var isOpen = false;

  function say(which) {
    texts.forEach(function (name) {
      document.getElementById("sheet-" + name).hidden = name !== which;
    });
  }

  function ended(answer) {
    var said = (answer && answer.err_msg) || "";
    isOpen = false;
    button.disabled = false;
    if (said.slice(-3) === ":ok") {
      say("checking");
      button.hidden = true;
      window.setTimeout(function () {
        window.location.replace(payment.getAttribute("data-next"));
      }, 1000);
    } else {
      say("closed");
    }
  }

  function open() {
    if (!window.WeixinJSBridge) {
      say("outside");
      return;
    }
    if (isOpen) {
      return;
    }
    isOpen = true;
    button.disabled = true;
    window.WeixinJSBridge.invoke("getBrandWCPayRequest", values, ended);
  }

  say("text");
  button.hidden = false;
  button.addEventListener("click", open);
  if (sheet.getAttribute("data-opens") === "yes") {
    window.history.replaceState(null, "", payment.getAttribute("data-next"));
    if (window.WeixinJSBridge) {
      open();
    } else {
      document.addEventListener("WeixinJSBridgeReady", open, false);
    }
  }
})();
