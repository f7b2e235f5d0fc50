"use strict";

// Forms with data-passkey ask the browser for a passkey, put its answer into their field "answer", and are sent then.
// Their buttons are disabled until this runs: whoever is quicker would send the form without an answer.
for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const problem = form.querySelector("[role=alert]");
    problem.hidden = true;
    try {
      const options = JSON.parse(form.dataset.options);
      const found = form.dataset.passkey === "create"
        ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
        : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
      form.elements.answer.value = JSON.stringify(found.toJSON());
      form.submit();
    } catch (error) {
      problem.textContent = "The browser gave no passkey: " + error.message;
      problem.hidden = false;
    }
  });
  form.querySelector("button").disabled = false;
}
