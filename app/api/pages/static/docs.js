// Shows the API's description, and executes its examples.
"use strict";

const root = document.getElementById("swagger-ui");
// Stands in addresses for the response that was made last on this page.
const LATEST = "resp_latest";
let latest = LATEST;

if (matchMedia("(prefers-color-scheme: dark)").matches) {
  document.documentElement.classList.add("dark-mode");
}

SwaggerUIBundle({
  url: root.dataset.description,
  domNode: root,
  validatorUrl: null, // it is somebody else's
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  persistAuthorization: false, // a key is not left behind in the browser
  requestInterceptor(request) {
    request.url = request.url.replace(LATEST, latest);
    return request;
  },
  responseInterceptor(response) {
    if (response.body?.object === "response") {
      latest = response.body.id;
    }
    return response;
  },
});
