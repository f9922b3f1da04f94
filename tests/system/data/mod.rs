//! What projects keep, against a running hub: values by key, arrays by name, files that nothing names.

mod arrays;
mod chain;
mod command;
mod fetching;
mod garbage;
mod keys;
mod numpy;

use forge_tests::api::{Answer, Api};
use reqwest::Method;

/// Asserts that an answer is a problem with this status and code whose sentence holds these words.
fn refused(what: &str, answer: &Answer, status: u16, code: &str, says: &[&str]) {
    assert_eq!((answer.status.as_u16(), answer.at("/code").as_str()), (status, Some(code)), "{what}: {}", answer.text);
    let detail = answer.at("/detail").as_str().unwrap_or_default();
    for words in says {
        assert!(detail.contains(words), "{what}: {words:?} is not in {detail:?}");
    }
}

/// `POST` of an array as the next version of a name.
async fn keep(api: &Api, name: &str, media_type: &str, body: Vec<u8>) -> Answer {
    let request = api.request(Method::POST, &format!("/api/v0/vmem/{name}")).header("content-type", media_type);
    api.send(request.body(body)).await
}

async fn remove(api: &Api, path: &str) -> Answer {
    api.send(api.request(Method::DELETE, path)).await
}
