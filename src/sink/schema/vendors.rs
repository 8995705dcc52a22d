//! Tables of what partners post: Branch, Graphy, Shopify, WebEngage.
