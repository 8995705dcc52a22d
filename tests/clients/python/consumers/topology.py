"""Queues, exchanges and keys of the contract, and the tables' refusals.

Used by the modules beside it.
"""

# queue: (exchange, a key that its binding matches, its error queue). Topic exchanges
# get the event's name as key; the key here is only their default.
ROUTES = {
    "grpc_clickhouse_event_q": ("grpc_event.tx", "LaunchEvent", "grpc_clickhouse_event_error_q"),
    "grpc_clickhouse_event_error_q": (
        "grpc_event_error.dx",
        "error.grpc_clickhouse_event_q",
        "grpc_clickhouse_event_error_q_error",
    ),
    "clickhouse_click_event_q": ("grpc_event.dx", "CLICK", "clickhouse_click_event_q_error"),
    "app_init_event_q": ("event.dx", "APP_INIT", "app_init_event_q_error"),
    "launch_refer_event_q": ("event.dx", "LAUNCH_REFER_EVENT", "launch_refer_event_q_error"),
    "create_user_account_q": ("identity.dx", "user.client.account.create", "create_user_account_q_error"),
    "event.account_profile_complete": (
        "identity.dx",
        "user.client.account.profile.completed",
        "event.account_profile_complete_error",
    ),
    "ab_assignments": ("ab.dx", "ab_assignments", "ab_assignments_error"),
    "branch_event_q": ("branch_event.tx", "INSTALL", "branch_event_q_error"),
    "graphy_event_q": ("graphy_event.tx", "SIGNUP", "graphy_event_q_error"),
    "trace_log": ("identity.dx", "trace_log", "trace_log_error"),
    "affiliate_orders_event_q": ("affiliate.dx", "*", "affiliate_orders_event_q_error"),
    "bigboss_votes_log_q": ("bigboss", "*", "bigboss_votes_log_q_error"),
    "post_log_events_q": ("beat.dx", "post_log_events", "post_log_events_q_error"),
    "sentiment_log_events_q": ("beat.dx", "sentiment_log_events", "sentiment_log_events_q_error"),
    "post_activity_log_events_q": ("beat.dx", "post_activity_log_events", "post_activity_log_events_q_error"),
    "profile_log_events_q": ("beat.dx", "profile_log_events", "profile_log_events_q_error"),
    "profile_relationship_log_events_q": (
        "beat.dx",
        "profile_relationship_log_events",
        "profile_relationship_log_events_q_error",
    ),
    "scrape_request_log_events_q": ("beat.dx", "scrape_request_log_events", "scrape_request_log_events_q_error"),
    "order_log_events_q": ("beat.dx", "order_log_events", "order_log_events_q_error"),
    "shopify_events_q": ("shopify_event.dx", "shopify_events", "shopify_events_q_error"),
    "webengage_event_q": ("webengage_event.dx", "EVENT", "webengage_event_q_error"),
    "webengage_ch_event_q": ("webengage_event.dx", "EVENT", "webengage_ch_event_q_error"),
    "webengage_user_event_q": ("webengage_event.dx", "USER_EVENT", "webengage_user_event_q_error"),
    "post_log_events_q_bkp": ("beat.dx", "post_log_events_bkp", "post_log_events_q_bkp_error"),
    "activity_tracker_q": ("coffee.dx", "activity_tracker_rk", "activity_tracker_q_error"),
    "grpc_postgres_event_q": ("grpc_event.tx", "LaunchEvent", "grpc_postgres_event_q_error"),
    # Beside the contract's: the errors of Postgres, and Graphy's calls.
    "grpc_postgres_event_q_error": (
        "grpc_event_error.dx",
        "error.grpc_postgres_event_q",
        "grpc_postgres_event_q_error_error",
    ),
    "graphy_webengage_event_q": ("graphy_event.tx", "SIGNUP", "graphy_webengage_event_q_error"),
}

# These get what is sent to another's exchange with the same key.
SHARED = {
    "grpc_postgres_event_q": "grpc_clickhouse_event_q",
    "webengage_ch_event_q": "webengage_event_q",
    "graphy_webengage_event_q": "graphy_event_q",
}
# Only what consumers refuse comes here.
ERRORS_ONLY = "grpc_postgres_event_q_error"

# Consumers that write no rows into ClickHouse.
ELSEWHERE = [
    "webengage_event_q", "webengage_user_event_q", "graphy_webengage_event_q", "grpc_postgres_event_q", ERRORS_ONLY,
]

# A text with this in it is refused: by a constraint of the table on this column.
REFUSED = "refuse-me"
CONSTRAINT = "no_refuse_me"
# And with this WebEngage refuses it.
UNWELCOME = "unwelcome"
CLICKHOUSE_CHECKS = {
    "events": "current_url",
    "error_events": "merchant_id",
    "app_init_events": "client_id",
    "launch_refer_events": "dynamic_link",
    "signup_referral_events": "user_id",
    "profile_completion_referral_events": "user_id",
    "ab_assignments": "checksum",
    "branch_events": "origin",
    "graphy_events": "event_name",
    "trace_log_events": "service_name",
    "affiliate_order_events": "referral_code",
    "bigboss_vote_log": "vendorcode",
    "post_log_events": "source",
    "sentiment_log_events": "comment",
    "post_activity_log_events": "source",
    "profile_log_events": "source",
    "profile_relationship_log_events": "source",
    "scrape_request_log_events": "flow",
    "order_log_events": "store",
    "shopify_events": "event_name",
    "webengage_events": "event_name",
    "partner_activity_log_events": "module_name",
}
# Another column than ClickHouse's, so that one of the two refuses alone.
POSTGRES_CHECKS = {"events": "utm_source", "error_events": "merchant_id"}


def producible():
    """Queues that messages are made for, each exchange and key once."""
    return [queue for queue in ROUTES if queue not in SHARED and queue != ERRORS_ONLY]


def queues_of(queue):
    """The queues that get what is sent for this one."""
    return [queue, *(other for other, first in SHARED.items() if first == queue)]


def error_queues():
    """Every queue that refused messages end in; two of them have consumers of their own."""
    return sorted({error for _, _, error in ROUTES.values()})
