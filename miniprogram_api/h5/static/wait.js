/* Asks how a payment stands until it has changed, then shows its page anew; sends a form that waits once more.
   Without scripts the page refreshes, and the form has a button. */
(function () {
  "use strict";
  var form = document.getElementById("again");
  if (form) {
    window.setTimeout(function () {
      form.submit();
    }, 2000);
    return;
  }
  var payment = document.getElementById("payment");
  if (!payment || !window.fetch) {
    return;
  }
  var began = Date.now();
  var hadSheet = document.getElementById("sheet") !== null;

  function again() {
    var age = Date.now() - began;
    if (age < 15 * 60 * 1000) {
      window.setTimeout(ask, age < 2 * 60 * 1000 ? 2500 : 10000);
    }
  }

  function ask() {
    if (document.hidden) {
      again();
      return;
    }
    fetch(payment.getAttribute("data-state"), { credentials: "same-origin", cache: "no-store" })
      .then(function (answer) {
        return answer.json();
      })
      .then(function (state) {
        if (state.status !== payment.getAttribute("data-status") || (state.has_sheet && !hadSheet)) {
          window.location.replace(payment.getAttribute("data-next"));
        } else {
          again();
        }
      })
      .catch(again);
  }

  again();
})();
