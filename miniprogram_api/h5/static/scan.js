/* Opens the app's scanner, where the app lets this page; typing the number always works. */
(function () {
  "use strict";
  var form = document.getElementById("scan");
  var button = document.getElementById("scan-button");
  if (!form || !button) {
    return;
  }
  var config = JSON.parse(button.getAttribute("data-config"));

  function ready(wx) {
    wx.config({
      debug: false,
      appId: config.appId,
      timestamp: config.timestamp,
      nonceStr: config.nonceStr,
      signature: config.signature,
      jsApiList: ["scanQRCode"]
    });
    wx.ready(function () {
      button.hidden = false;
      button.addEventListener("click", function () {
        wx.scanQRCode({
          needResult: 1,
          scanType: ["qrCode", "barCode"],
          success: function (result) {
            form.elements.number.value = result.resultStr;
            form.submit();
          }
        });
      });
    });
  }

  if (window.wx && window.wx.config) {
    ready(window.wx);
    return;
  }
  var script = document.createElement("script");
  script.src = button.getAttribute("data-script");
  script.onload = function () {
    ready(window.wx || window.jWeixin);
  };
  document.head.appendChild(script);
})();
