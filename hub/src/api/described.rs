//! What is true of every route with a key, said once.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

/// Statuses that any route with a key may answer, and what they mean.
const ALWAYS: [(&str, &str); 6] = [
    ("400", "A part of the path or of the query is not what it must be"),
    ("401", "There is no key, or it is unknown, expired or revoked"),
    ("403", "The key's scopes do not allow this"),
    ("429", "The project sends too many requests; `Retry-After` says when to go on"),
    ("500", "The hub failed on this request"),
    ("503", "The hub is stopping"),
];

/// Adds to each operation with a key what all of them may answer, where it does not say so itself.
pub(super) fn complete(openapi: &mut OpenApi) {
    for item in openapi.paths.paths.values_mut() {
        for operation in operations(item).into_iter().flatten() {
            // A problem looks the same everywhere: the one that is described serves as the pattern.
            let Some(pattern) = operation.responses.responses.get("401").filter(|_| operation.security.is_some())
            else {
                continue;
            };
            let mut pattern = pattern.clone();
            for (status, description) in ALWAYS {
                if let RefOr::T(response) = &mut pattern {
                    description.clone_into(&mut response.description);
                }
                operation.responses.responses.entry(status.into()).or_insert_with(|| pattern.clone());
            }
        }
    }
}

fn operations(item: &mut PathItem) -> [Option<&mut Operation>; 6] {
    let PathItem { get, put, post, delete, head, patch, .. } = item;
    [get.as_mut(), put.as_mut(), post.as_mut(), delete.as_mut(), head.as_mut(), patch.as_mut()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_route_with_a_key_says_what_may_happen_and_no_two_share_a_line() {
        let document = serde_json::to_value(crate::api::description()).unwrap();
        let mut keyed = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if operation["security"].is_array() {
                    keyed += 1;
                    for (status, _) in ALWAYS {
                        let response = &operation["responses"][status];
                        assert!(response["description"].is_string(), "{method} {path} does not say {status}");
                    }
                }
            }
        }
        assert!(keyed > 40, "{keyed}");
    }
}
