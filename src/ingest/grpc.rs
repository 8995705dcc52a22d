//! The gRPC port: the calls with events, health, reflection, grpc-web in binary and text mode.
//! Called by `app`, which serves it.

use super::bodies::{Bodies, Who};
use super::calls::{Calls, DISPATCH, HOST_KEY, SEQ_KEY, refuse};
use super::door::Door;
use crate::event::descriptor::FILE_DESCRIPTOR_SET;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderName, Version};
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_web::GrpcWebLayer;
use tower::Service;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

/// Response headers that a browser's grpc-web client must be able to read.
const EXPOSED_HEADERS: [&str; 7] = [
    "x-bb-requestid",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-retry-pushback-ms",
    HOST_KEY,
    SEQ_KEY,
];

/// Bytes of a message that brings no events: the name of a service, or of a type.
const ASIDE_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The paths of calls with events.
const EVENT_SERVICE: &str = "/event.EventService/{*rest}";

/// What answers on the gRPC port. What native clients dispatch, nearly all that comes, goes
/// straight to its handler; the layers for browsers, and the search for a route, would be a
/// good part of its price.
#[derive(Debug, Clone)]
pub struct GrpcRoutes {
    calls: Calls,
    others: axum::Router,
}

impl GrpcRoutes {
    /// The services of the gRPC port.
    ///
    /// # Errors
    /// When the compiled-in descriptors do not serve reflection.
    pub fn new<H: Health>(
        door: Door,
        health: HealthServer<H>,
        request_bytes_max: usize,
        bodies: Bodies,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let calls = Calls::new(door.clone(), request_bytes_max, bodies.clone());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(health.max_decoding_message_size(ASIDE_MESSAGE_BYTES_MAX))
            .add_service(
                reflection()
                    .build_v1()?
                    .max_decoding_message_size(ASIDE_MESSAGE_BYTES_MAX),
            )
            .add_service(
                reflection()
                    .build_v1alpha()?
                    .max_decoding_message_size(ASIDE_MESSAGE_BYTES_MAX),
            );
        let others = routes
            .routes()
            .into_axum_router()
            .layer(from_fn_with_state((bodies.aside(), door), watch))
            .route_service(EVENT_SERVICE, calls.clone())
            // Around all, since it has to wrap the refusals, too.
            .layer(GrpcWebLayer::new())
            .layer(cors());
        Ok(Self { calls, others })
    }
}

impl Service<Request> for GrpcRoutes {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both are ready always.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if is_native_dispatch(&request) {
            self.calls.call(request)
        } else {
            Box::pin(self.others.call(request))
        }
    }
}

/// Whether this is a dispatch by a client that is no browser.
fn is_native_dispatch(request: &Request) -> bool {
    let headers = request.headers();
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let is_grpc = content_type.is_some_and(|content_type| {
        content_type.starts_with(b"application/grpc")
            && !content_type.starts_with(b"application/grpc-web")
    });
    is_grpc
        && request.version() == Version::HTTP_2
        && request.uri().path() == DISPATCH
        && !headers.contains_key(ORIGIN)
}

/// Bounds the bodies of all calls that bring no events.
async fn watch(
    State((bodies, door)): State<(Bodies, Door)>,
    request: Request,
    next: Next,
) -> Response {
    let next = async |request: http::Request<_>| next.run(request.map(axum::body::Body::new)).await;
    bodies
        .watch(&door, Who::Anybody, request, next, refuse)
        .await
}

/// What lets browsers of any site call: the door has no cookies to protect.
pub(super) fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .allow_credentials(true)
        .expose_headers(EXPOSED_HEADERS.map(HeaderName::from_static))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn only_dispatches_that_need_no_layer_go_past_them() {
        let is_native = |version, path: &str, content_type: &str, origin: Option<&str>| {
            let mut request = http::Request::post(format!("http://edge{path}"))
                .version(version)
                .header(CONTENT_TYPE, content_type);
            if let Some(origin) = origin {
                request = request.header(ORIGIN, origin);
            }
            is_native_dispatch(&request.body(Body::empty()).unwrap())
        };
        let http2 = Version::HTTP_2;
        for content_type in ["application/grpc", "application/grpc+proto"] {
            assert!(is_native(http2, DISPATCH, content_type, None));
            let of_a_browser = Some("https://shop.example");
            assert!(!is_native(http2, DISPATCH, content_type, of_a_browser));
            assert!(!is_native(Version::HTTP_11, DISPATCH, content_type, None));
            let health = "/grpc.health.v1.Health/Check";
            assert!(!is_native(http2, health, content_type, None));
        }
        for content_type in [
            "application/grpc-web",
            "application/grpc-web-text",
            "application/grpc-web+proto",
            "application/json",
        ] {
            assert!(
                !is_native(http2, DISPATCH, content_type, None),
                "{content_type}"
            );
        }
    }
}
