// A link's ticket is in the fragment, which no server and no log ever sees. It is sent by the form.
const ticket = location.hash.slice(1);
const form = document.getElementById("ticket-form");
if (ticket && form instanceof HTMLFormElement) {
  history.replaceState(null, "", location.pathname + location.search);
  const field = form.elements.namedItem("ticket");
  if (field instanceof HTMLInputElement) {
    field.value = ticket;
    form.requestSubmit();
  }
}
