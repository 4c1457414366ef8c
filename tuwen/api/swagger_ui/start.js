"use strict";
// Addresses are the page's: it works behind a proxy that puts the service below a path.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#page", deepLinking: true, presets: [SwaggerUIBundle.presets.apis] });
