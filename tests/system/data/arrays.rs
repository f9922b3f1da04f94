//! Arrays by name: versions that never change, parts, every format, and what is none.

use forge_contract::Digest;
use forge_tests::api::{Answer, Api};
use forge_tests::npy;
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

use super::{keep, refused, remove};

const NPY: &str = "application/x-npy";
const STREAM: &str = "application/vnd.apache.arrow.stream";
const FILE: &str = "application/vnd.apache.arrow.file";

/// A 3 x 4 x 5 array of doubles that count.
fn cube() -> Vec<u8> {
    let data: Vec<u8> = (0..60_u8).flat_map(|number| f64::from(number).to_le_bytes()).collect();
    npy::file("<f8", false, "(3, 4, 5)", &data)
}

/// Body and header fields of a `GET`.
async fn read(api: &Api, path: &str, accept: &str) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let response = api.request(Method::GET, path).header("accept", accept).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    (response.headers().clone(), response.bytes().await.unwrap().to_vec())
}

/// The doubles after a header.
fn doubles(file: &[u8]) -> Vec<f64> {
    let header = forge_contract::array::npy::read(file).unwrap();
    let data = &file[usize::try_from(header.data_at).unwrap()..];
    data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

#[tokio::test]
async fn a_version_is_kept_read_and_deleted_and_its_number_stays() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let made = keep(api, "cube", NPY, cube()).await;
    assert_eq!(
        (made.status.as_u16(), made.at("/version"), made.at("/shape")),
        (201, &json!(1), &json!([3, 4, 5])),
        "{}",
        made.text
    );
    assert_eq!(
        (made.at("/dtype"), &made.headers["location"]),
        (&json!("f64"), &"/api/v0/vmem/cube/1".parse().unwrap())
    );
    let (headers, bytes) = read(api, "/api/v0/vmem/cube", NPY).await;
    assert_eq!(
        (doubles(&bytes).len(), &headers["forge-version"], &headers["forge-shape"]),
        (60, &"1".parse().unwrap(), &"[3,4,5]".parse().unwrap())
    );
    assert_eq!(made.at("/digest"), &json!(Digest::of(&bytes).to_string()));
    for version in 2..=3 {
        assert_eq!(keep(api, "cube", NPY, cube()).await.at("/version"), &json!(version));
    }
    assert_eq!(remove(api, "/api/v0/vmem/cube/3").await.status, 204);
    refused("deleted", &api.get("/api/v0/vmem/cube/3").await, 404, "request.not_found", &["was deleted"]);
    refused("again", &remove(api, "/api/v0/vmem/cube/3").await, 404, "request.not_found", &["was deleted"]);
    assert_eq!(read(api, "/api/v0/vmem/cube/latest", NPY).await.0["forge-version"], "2");
    assert_eq!(keep(api, "cube", NPY, cube()).await.at("/version"), &json!(4), "a number is never given again");
    let versions = api.get("/api/v0/vmem/cube/versions").await;
    let shown: Vec<(u64, bool)> = versions
        .at("/items")
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["version"].as_u64().unwrap(), item["deleted_at_ms"].is_u64()))
        .collect();
    assert_eq!(shown, [(1, false), (2, false), (3, true), (4, false)]);
    let page = api.get("/api/v0/vmem/cube/versions?limit=2").await;
    assert_eq!(api.get(page.at("/next").as_str().unwrap()).await.at("/items/0/version"), &json!(3));
    keep(api, "a", NPY, cube()).await;
    let list = api.get("/api/v0/vmem?limit=1").await;
    assert_eq!((list.at("/items/0/name"), list.at("/next")), (&json!("a"), &json!("/api/v0/vmem?limit=1&after=a")));
    assert_eq!(api.get("/api/v0/vmem?after=a").await.at("/items/0/version"), &json!(4));
    let about: Value = serde_json::from_slice(&read(api, "/api/v0/vmem/cube/1", "application/json").await.1).unwrap();
    assert_eq!((&about["name"], &about["digest"]), (&json!("cube"), made.at("/digest")));
    pool.stop().await;
}

/// numpy says what each part holds.
#[tokio::test]
async fn parts_are_those_of_numpy() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    keep(api, "cube", NPY, cube()).await;
    for (slice, shape, expected) in [
        ("0:2,:,3", "[2,4]", vec![3.0, 8.0, 13.0, 18.0, 23.0, 28.0, 33.0, 38.0]),
        ("-1,-1,-1", "[]", vec![59.0]),
        ("1,::2,::-4", "[2,2]", vec![24.0, 20.0, 34.0, 30.0]),
        ("...,0", "[3,4]", (0..12).map(|n| f64::from(n) * 5.0).collect()),
        ("3:", "[0,4,5]", vec![]),
    ] {
        let (headers, bytes) = read(api, &format!("/api/v0/vmem/cube/1?slice={slice}"), "*/*").await;
        assert_eq!((headers["forge-shape"].to_str().unwrap(), doubles(&bytes)), (shape, expected), "{slice}");
        assert_eq!(headers["content-length"], bytes.len().to_string().as_str());
        let tag = headers["etag"].clone();
        let again =
            api.request(Method::GET, &format!("/api/v0/vmem/cube/1?slice={slice}")).header("if-none-match", tag);
        assert_eq!(api.send(again).await.status, 304, "{slice}");
    }
    for (slice, status, code, words) in [
        ("4", 422, "request.conflict", "index 4"),
        ("::0", 422, "request.conflict", "step"),
        ("0,0,0,0", 422, "request.conflict", "4 indices"),
        ("1-2", 422, "request.conflict", "neither an index"),
        ("a", 400, "request.schema", "neither an index"),
        ("%2B1", 400, "request.schema", "neither an index"),
        ("", 400, "request.schema", "neither"),
    ] {
        let answer = api.get(&format!("/api/v0/vmem/cube?slice={slice}")).await;
        refused(slice, &answer, status, code, &["slice", words]);
    }
    let range = api.request(Method::GET, "/api/v0/vmem/cube/1").header("range", "bytes=0-5").send().await.unwrap();
    assert_eq!((range.status().as_u16(), range.bytes().await.unwrap().as_ref()), (206, &b"\x93NUMPY"[..]));
    pool.stop().await;
}

/// Out as Arrow, in again: the same content. Rows of a part come as batches.
#[tokio::test]
async fn arrow_comes_and_goes_without_a_difference() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let data: Vec<u8> = (0..300_000_i32).flat_map(|number| number.to_le_bytes()).collect();
    let table = npy::file("<i4", false, "(100000, 3)", &data);
    let arrays = [
        ("cube", cube()),
        ("table", table),
        ("line", npy::file("<i8", false, "(2,)", &[7; 16])),
        ("one", npy::file("<f4", false, "()", &[1; 4])),
    ];
    for (name, file) in arrays {
        let made = keep(api, name, NPY, file).await;
        for (number, media_type) in [STREAM, FILE].into_iter().enumerate() {
            let (headers, arrow) = read(api, &format!("/api/v0/vmem/{name}/1"), media_type).await;
            assert_eq!(headers["content-type"], media_type);
            let back = keep(api, name, media_type, arrow).await;
            assert_eq!(
                (back.at("/version"), back.at("/digest")),
                (&json!(number + 2), made.at("/digest")),
                "{}",
                back.text
            );
        }
    }
    let (_, part) = read(api, "/api/v0/vmem/table/1?slice=::-1,1", STREAM).await;
    keep(api, "column", STREAM, part).await;
    let (headers, column) = read(api, "/api/v0/vmem/column", NPY).await;
    assert_eq!(headers["forge-shape"], "[100000]");
    assert!(column.ends_with(&1_i32.to_le_bytes()));
    pool.stop().await;
}

#[tokio::test]
async fn what_is_no_array_is_refused() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let cut = |mut file: Vec<u8>| {
        file.pop();
        file
    };
    for (what, body, says) in [
        ("text", b"hello".to_vec(), "not begin with"),
        ("nothing", vec![], "ends within"),
        ("cut", cut(cube()), "480 bytes of numbers, 479"),
        ("longer", [cube(), vec![0]].concat(), "481"),
        ("Fortran", npy::file("<f8", true, "(2, 2)", &[0; 32]), "ascontiguousarray"),
        ("big-endian", npy::file(">f8", false, "(1,)", &[0; 8]), "'>f8'"),
        ("bytes", npy::file("|u1", false, "(1,)", &[0]), "'|u1'"),
        ("nine dimensions", npy::file("<f4", false, "(1,1,1,1,1,1,1,1,1)", &[0; 4]), "8 dimensions"),
        ("absurd", npy::file("<f8", false, "(4611686018427387904, 4)", &[]), "2^63"),
    ] {
        refused(what, &keep(api, "x", NPY, body).await, 422, "request.array", &[says]);
    }
    refused("no Arrow", &keep(api, "x", STREAM, b"hello".to_vec()).await, 422, "request.array", &["Arrow"]);
    refused("JSON", &keep(api, "x", "application/json", b"{}".to_vec()).await, 415, "request.media_type", &[NPY]);
    refused("name", &keep(api, ".x", NPY, cube()).await, 400, "request.schema", &["the name"]);
    for version in ["0", "-1", "x", "99999999999999999999"] {
        let answer = api.get(&format!("/api/v0/vmem/x/{version}")).await;
        refused(version, &answer, 400, "request.schema", &["version"]);
    }
    refused("none", &api.get("/api/v0/vmem/x").await, 404, "request.not_found", &[]);
    refused("none", &api.get("/api/v0/vmem/x/versions").await, 404, "request.not_found", &[]);
    refused("latest", &remove(api, "/api/v0/vmem/x/latest").await, 400, "request.schema", &["number"]);
    keep(api, "y", NPY, cube()).await;
    let picky: Answer = api.send(api.request(Method::GET, "/api/v0/vmem/y").header("accept", "text/html")).await;
    refused("Accept", &picky, 406, "request.not_acceptable", &[NPY]);
    assert_eq!(api.get("/api/v0/vmem").await.at("/items").as_array().unwrap().len(), 1, "nothing refused was kept");
    pool.stop().await;
}

/// Older headers and odd spellings are kept as the one canonical file: the same array has the same digest.
#[tokio::test]
async fn one_array_has_one_digest() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let data = [0_u8; 48];
    let first = keep(api, "x", NPY, npy::file("<f8", false, "(2, 3)", &data)).await;
    let dictionary = "{'shape': (2,3), 'fortran_order':False, 'descr':\"<f8\"}\n";
    let mut second = b"\x93NUMPY\x02\0".to_vec();
    second.extend(u32::try_from(dictionary.len()).unwrap().to_le_bytes());
    second.extend(dictionary.bytes());
    second.extend(data);
    let second = keep(api, "x", "application/octet-stream", second).await;
    assert_eq!((second.at("/version"), second.at("/digest")), (&json!(2), first.at("/digest")), "{}", second.text);
    pool.stop().await;
}
