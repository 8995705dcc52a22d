//! Looking at a queue: nothing is taken but what is told to be, and everything is seen
//! once in one look.

use super::nodes::{healthy, session};
use super::{confirmed, make, take, to};
use holdfast::broker::{Browser, Publisher, QueueType};

#[tokio::test]
async fn a_look_takes_nothing_but_what_it_is_told_to() {
    let node = healthy().await;
    let session = session(node).await;
    assert!(Browser::open(&session, "nowhere").await.unwrap().is_none());
    for kind in [QueueType::Quorum, QueueType::Classic] {
        let name = format!("looked_at_{kind:?}");
        make(&session, &name, kind).await;
        let publisher = Publisher::open(&session).await.unwrap();
        for number in 0..5 {
            confirmed(&publisher, &to(&name, vec![number])).await;
        }
        let browser = Browser::open(&session, &name).await.unwrap().unwrap();
        // A busy broker may say fewer than there are, but never none.
        assert!((1..=5).contains(&browser.depth().messages));
        let mut held = Vec::new();
        while let Some((message, one)) = browser.next().await.unwrap() {
            held.push((message.body[0], one));
        }
        let seen: Vec<_> = held.iter().map(|(body, _)| *body).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        for (body, one) in held {
            if body % 2 == 1 {
                browser.done(one).await.unwrap();
            }
        }
        browser.close().await.unwrap();
        // A look that is dropped in its midst takes nothing either, nor does an empty one.
        // The broker counts what was taken and given back a moment later.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let browser = loop {
            let browser = Browser::open(&session, &name).await.unwrap().unwrap();
            let messages = browser.depth().messages;
            if (1..=3).contains(&messages) {
                break browser;
            }
            assert!(std::time::Instant::now() < until, "{messages} messages");
            browser.close().await.unwrap();
        };
        browser.next().await.unwrap().unwrap();
        drop(browser);
        let browser = Browser::open(&session, &name).await.unwrap().unwrap();
        browser.close().await.unwrap();
        let mut left: Vec<_> = take(&session, &name, 3)
            .await
            .iter()
            .map(|delivery| delivery.message.body[0])
            .collect();
        left.sort_unstable();
        assert_eq!(left, [0, 2, 4]);
    }
    session.close().await;
}
