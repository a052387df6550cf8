// Turns green by itself when the first request comes.
const place = document.getElementById("first-request");
if (place?.dataset.feed) {
  const source = new EventSource(place.dataset.feed);
  source.addEventListener("message", (event) => {
    source.close();
    const row = JSON.parse(event.data);
    const link = document.createElement("a");
    link.href = `${place.dataset.link}${row.id}`;
    link.textContent = `● ${place.dataset.done}`;
    link.className = "good";
    place.replaceChildren(link);
  });
}
