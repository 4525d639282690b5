"""Which scenarios of tests/gateway differ on APISIX, and why. Everything that is not listed here runs on the stand-in as it
is. What the caller and the provider see instead is in test_differences.py, or in test_standin.py where it is the host's own.

The reasons are those of docs/hosts.md.
"""

from __future__ import annotations

import fnmatch
from typing import NamedTuple, Optional

HEAD_ONLY = "an error, an empty or another body inside a 200: the chain sees its head alone, and the client gets an error event"
DIES_EARLY = "a stream that dies before its first token, headers sent: the client gets an error event or a broken stream"
ASKED_TWICE = "a 400, 403, 409, 412, 422 or 424 to a stream is asked once more, and heard whole, while a candidate is left that it may lead to"
CODE_UNSEEN = "what the body of a 404, 429, 500 or 503 says is not seen on the chain"
NO_OPINION = "the first refusal of a stream could not be kept until others were asked: the client gets it at once"
NOT_KEPT = "the first refusal of a stream that has moved cannot be kept: the last one goes out, or its status alone"
NO_WAIT = "nobody waits for a Retry-After: the next provider is asked"
DRIPS = "a provider that sends without an end, but nothing of use: the limit is for each silence"
ONE_LIMIT = "the outer route has one limit for silence, before and within a stream, and the same for every route of Shunt"
ALONE = "each worker learns and counts alone"
CALLS_END = "the client left: calls run to their end, and are billed"
CALLS_HOLD = "an answer to a call is heard whole, however long it is"
NO_RESET = "the filter cannot reset a stream: half of a long event is ended, and the error event follows"
HTTP2 = "nginx speaks HTTP/1.1 to providers"
NO_LENGTH = "APISIX reads no body over HTTP/2 whose length its head does not tell"
CALLS_BREAK = "of an answer to a call that broke off nothing is known, and nothing is billed"
BEHIND = "of a stream that breaks off, the record is as it stood a second before"
NO_ROUTE = "a provider without an inner route is unreachable: no cluster's name tells the filter so beforehand"
OF_NGINX = "what nginx refuses before there is a route, nginx answers"
OF_APISIX = "outside /v1/ there is no route: APISIX answers"
KEY_REFUSED = "a key in the query is refused, because nginx writes the request's first line into its error log"
NO_UPGRADE = "nginx passes no upgrade on: what the filter sees of a websocket's handshake is a GET"
OF_ENVOY = "Envoy's own: its configuration, its spans, its health checks, its statistics"
REFUSED_LATE = "a mistake in the configuration: every request gets a 500 in the envelope, and the log names it"
RECONNECTS = "nginx replaces a connection that has gone stale by itself"


class Row(NamedTuple):
    """A scenario, or those of its parameters that a pattern names."""

    file: str
    test: str
    reason: str
    #: Shell patterns of parameters.
    parameters: tuple[str, ...] = ("*",)


ROWS = [
    Row("outcomes", "test_a_fault_is_answered_by_the_next_provider_and_remembered", HEAD_ONLY, ("empty_stream-stream", "garbage-stream", "error_event_200*-stream", "done_only-stream", "event_200_overloaded-stream", "out_of_machines-stream", "json_200_*-stream")),
    Row("outcomes", "test_a_fault_is_answered_by_the_next_provider_and_remembered", DIES_EARLY, ("headers_only-stream", "stall_before_content-stream", "clean_cut_before_content-stream", "done_before_content-stream", "reset_before_content-stream", "fin_before_content-stream")),
    Row("outcomes", "test_a_fault_is_answered_by_the_next_provider_and_remembered", CODE_UNSEEN, ("404-stream", "500_server_is_overloaded-stream", "429_slow_down-stream", "429_insufficient_quota-stream", "429_quota_with_retry_after-stream")),
    Row("outcomes", "test_a_fault_is_answered_by_the_next_provider_and_remembered", ASKED_TWICE, ("403*-stream", "400_*-stream")),
    Row("outcomes", "test_a_fault_is_answered_by_the_next_provider_and_remembered", DRIPS, ("comments-stream", "role_only-stream", "drip-stream")),
    Row("outcomes", "test_a_provider_without_a_healthy_host_costs_no_request", OF_ENVOY),
    Row("outcomes", "test_a_stale_connection_is_replaced_at_the_same_provider", RECONNECTS),
    Row("outcomes", "test_a_released_stream_that_breaks_is_never_ended_cleanly", ONE_LIMIT, ("stall_beyond_the_first_token_limit",)),
    Row("outcomes", "test_a_short_retry_after_is_waited_for_at_the_same_provider", NO_WAIT),
    Row("outcomes", "test_a_provider_that_is_still_limited_after_the_wait_is_left", NO_WAIT),
    Row("outcomes", "test_a_conversation_that_is_too_long_goes_to_a_larger_context", ASKED_TWICE, ("code-stream", "words-stream")),
    Row("outcomes", "test_a_conversation_that_is_too_long_for_everybody_is_told_in_the_providers_words", ASKED_TWICE, ("stream",)),
    Row("outcomes", "test_a_request_that_is_wrong_or_refused_is_told_so_by_the_first_provider", ASKED_TWICE, ("*-stream",)),
    Row("second_opinion", "test_a_refusal_that_another_provider_disproves_is_answered_by_it", NO_OPINION, ("*-stream",)),
    Row("second_opinion", "test_a_refusal_that_another_provider_confirms_goes_to_the_client_as_it_came", NO_OPINION, ("stream",)),
    Row("second_opinion", "test_a_failure_is_no_opinion_and_the_provider_after_it_is_asked", NO_OPINION, ("*-stream",)),
    Row("second_opinion", "test_a_route_can_do_without_second_opinions", ASKED_TWICE, ("stream",)),
    Row("second_opinion", "test_a_refusal_of_the_input_says_more_than_a_timeout_elsewhere", NO_OPINION, ("stream",)),
    Row("moved", "test_if_nobody_answers_the_client_gets_the_first_refusal", NOT_KEPT, ("stream",)),
    Row("moved", "test_one_more_refusal_ends_it_and_no_other_provider_is_asked", NOT_KEPT, ("stream",)),
    Row("outcomes", "test_a_client_that_leaves_before_the_headers_is_nobodys_failure", CALLS_END, ("whole",)),
    Row("outcomes", "test_no_hostile_header_of_a_provider_reaches_the_client", ASKED_TWICE, ("error-stream",)),
    Row("refusals", "test_content_that_is_refused_is_told_so_and_holds_nobody", ASKED_TWICE, ("*-stream",)),
    Row("refusals", "test_a_400_about_the_account_goes_to_the_next_provider_and_holds", ASKED_TWICE, ("*-stream",)),
    Row("refusals", "test_content_that_is_refused_within_a_200_is_a_400_and_no_failure", HEAD_ONLY, ("*-stream",)),
    Row("refusals", "test_a_response_that_failed_for_its_prompt_is_nobodys_failure", HEAD_ONLY, ("stream",)),
    Row("release", "test_no_fault_before_the_first_token_reaches_the_client", HEAD_ONLY, ("done_only", "empty_stream", "error_event_200*", "garbage")),
    Row("release", "test_no_fault_before_the_first_token_reaches_the_client", DIES_EARLY, ("clean_cut_after_0", "cut_after_0", "headers_only", "stall_after_0")),
    Row("release", "test_no_fault_before_the_first_token_reaches_the_client", DRIPS, ("comments", "drip", "role_only")),
    Row("release", "test_a_route_may_be_more_patient_than_the_rest", ONE_LIMIT, ("first_token-stream",)),
    Row("release", "test_an_answer_that_breaks_off_beyond_what_is_held_is_never_ended_cleanly", CALLS_HOLD),
    Row("errors", "test_the_clients_query_does_not_cross", KEY_REFUSED),
    Row("errors", "test_what_envoy_itself_refuses_is_told_in_the_envelope", OF_NGINX),
    Row("errors", "test_a_websocket_is_refused_as_such_and_not_as_a_wrong_key", NO_UPGRADE),
    Row("errors", "test_a_request_that_cannot_be_served_is_told_why_and_costs_nothing", OF_APISIX, ("root",)),
    Row("errors", "test_when_every_provider_failed_the_client_hears_what_each_came_to", HEAD_ONLY, ("garbage-stream",)),
    Row("errors", "test_when_every_provider_failed_the_client_hears_what_each_came_to", DIES_EARLY, ("cut-stream",)),
    Row("errors", "test_when_every_provider_failed_the_client_hears_what_each_came_to", CODE_UNSEEN, ("no_such_model-stream",)),
    Row("errors", "test_when_every_provider_failed_the_client_hears_what_each_came_to", ASKED_TWICE, ("unwilling-stream",)),
    Row("long", "test_a_stream_is_reset_if_an_event_that_is_too_long_to_be_held_breaks", NO_RESET),
    Row("long", "test_a_stream_is_reset_however_such_an_event_breaks", NO_RESET),
    Row("long", "test_a_complete_stream_beyond_what_is_held_is_reset_if_such_an_event_breaks", CALLS_HOLD),
    Row("long", "test_a_whole_answer_that_is_too_long_to_be_held_is_reset_if_it_breaks", CALLS_HOLD),
    Row("long", "test_a_whole_answer_that_is_too_long_to_be_held_passes_if_it_is_whole", CALLS_HOLD),
    Row("errors", "test_a_request_that_ends_with_trailers_is_served_and_fails_over", NO_LENGTH, ("no_length",)),
    Row("errors", "test_no_trailer_of_a_client_reaches_a_provider", HTTP2),
    Row("schema", "test_a_conversation_moves_from_vendor_to_vendor_and_stays_one", DIES_EARLY, ("stream",)),
    Row("schema", "test_an_error_of_any_form_is_told_in_the_envelope", ASKED_TWICE, ("*-stream",)),
    Row("endpoints", "test_a_text_is_completed_by_who_can", DIES_EARLY, ("cut-stream",)),
    Row("endpoints", "test_a_response_comes_from_who_can_give_it", HEAD_ONLY, ("failed", "error_event")),
    Row("endpoints", "test_a_response_comes_from_who_can_give_it", DIES_EARLY, ("cut",)),
    Row("endpoints", "test_a_path_that_is_not_listed_goes_nowhere", OF_APISIX, ("/files",)),
    Row("edges", "test_a_stream_that_breaks_off_with_trailers_never_looks_finished", HTTP2),
    Row("edges", "test_a_stream_that_is_finished_when_its_trailers_come_ends", HTTP2),
    Row("edges", "test_a_1xx_before_a_failure_costs_the_next_provider_nothing", OF_ENVOY),
    Row("edges", "test_one_unhealthy_address_of_two_sends_nobody_to_the_backup", OF_ENVOY),
    Row("edges", "test_one_bad_health_check_takes_nobody_out", OF_ENVOY),
    Row("attacks", "test_a_request_with_trailers_is_translated_whole", NO_LENGTH, ("*-no_length",)),
    Row("attacks", "test_a_stream_that_is_finished_but_for_its_last_line_when_trailers_come_is_answered", HTTP2),
    Row("attacks", "test_a_finish_that_is_lost_with_its_blank_line_when_trailers_come_is_no_clean_end", HTTP2),
    Row("clients", "test_a_fault_before_the_release_never_reaches_the_client", HTTP2, ("*provider_h2*",)),
    Row("clients", "test_a_reset_after_the_release_breaks_the_clients_stream", HTTP2, ("*provider_h2*",)),
    Row("clients", "test_an_unfinished_stream_ends_with_an_error_event", HTTP2, ("*provider_h2*",)),
    Row("traces", "test_envoys_spans_are_one_trace_with_the_client_and_the_provider_and_say_who_answered", OF_ENVOY),
    Row("traces", "test_spans_of_a_failed_request_say_what_every_attempt_came_to", OF_ENVOY),
    Row("traces", "test_a_tracer_tells_providers_nothing_if_the_configuration_says_so", OF_ENVOY),
    Row("traces", "test_no_text_and_no_key_is_in_a_span", OF_ENVOY),
    Row("edges", "test_a_refusal_that_comes_as_a_success_reaches_the_client_as_an_error", HEAD_ONLY, ("stream",)),
    Row("attacks", "test_a_reset_of_what_passes_on_a_reused_connection_is_an_error_and_the_next_chat_still_goes_there", RECONNECTS),
    Row("clients", "test_an_error_is_the_packages_own_exception", ASKED_TWICE, ("bad_request-stream", "unprocessable-stream")),
    Row("clients", "test_a_fault_before_the_release_never_reaches_the_client", DIES_EARLY, ("provider_h1-cut-stream-*",)),
    Row("clients", "test_the_sync_client_gets_a_stream", HEAD_ONLY, ("error_in_200",)),
    Row("clients", "test_the_stream_helper_puts_the_answer_together", HEAD_ONLY, ("error_in_200",)),
    Row("clients", "test_the_async_client_gets_an_answer", HEAD_ONLY, ("error_in_200-stream",)),
    Row("breaker", "test_a_probe_whose_client_leaves_gives_its_permit_back", CALLS_END, ("whole",)),
    Row("audit", "test_a_client_that_leaves_before_the_headers_is_told_as_gone_and_its_prompt_is_estimated", CALLS_END, ("whole-*",)),
    Row("audit", "test_a_client_that_leaves_in_the_middle_of_a_stream_is_told_as_gone_and_what_was_said_is_estimated", BEHIND),
    Row("audit", "test_a_stream_that_its_provider_breaks_off_is_told_and_what_was_said_is_estimated", BEHIND, ("reset", "fin")),
    Row("audit", "test_a_stream_that_stalls_is_told_once_the_idle_limit_ends_it", BEHIND),
    Row("audit", "test_a_client_that_leaves_a_withheld_stream_is_billed_what_was_said_behind_its_back", CALLS_END),
    Row("audit", "test_every_attempt_of_a_failover_is_told_and_only_the_one_that_answered_is_billed", DIES_EARLY, ("stream",)),
    Row("audit", "test_a_model_without_a_price_is_told_as_unpriced_and_makes_the_whole_request_so", CALLS_BREAK),
    Row("audit", "test_a_failed_attempt_that_reported_a_usage_is_billed_and_one_that_did_not_is_not", CALLS_BREAK),
    Row("audit", "test_a_request_that_never_reached_the_filter_has_a_line_of_envoys_own", OF_ENVOY),
    Row("limits", "test_the_last_attempt_has_only_the_time_that_is_left", ONE_LIMIT, ("first_token",)),
    Row("money", "test_a_usage_that_was_told_before_the_content_is_billed_if_the_attempt_comes_to_nothing", DIES_EARLY),
    Row("repeats", "test_a_conflict_is_tried_once_more_at_the_same_provider", ASKED_TWICE, ("stream",)),
    Row("repeats", "test_it_is_waited_for_when_nobody_else_is_left", NO_WAIT),
    Row("endpoints", "test_a_models_name_with_a_broken_escape_is_not_found", OF_NGINX),
    Row("reload", "test_an_absent_key_stops_the_gateway_at_its_start_by_name", REFUSED_LATE),
    Row("reload", "test_an_empty_key_stops_the_gateway_at_its_start_by_name", REFUSED_LATE),
    Row("reload", "test_every_problem_of_a_configuration_is_in_the_log_with_its_path", REFUSED_LATE),
    Row("reload", "test_a_wrong_configuration_at_run_time_is_refused_and_the_old_one_goes_on_serving", REFUSED_LATE),
    Row("reload", "test_a_provider_whose_cluster_is_missing_is_passed_over_after_the_first_request", OF_ENVOY),
    Row("reload", "test_a_cluster_with_another_providers_name_gets_no_key_and_nothing_of_the_request", OF_ENVOY),
    Row("reload", "test_who_was_to_be_next_is_not_passed_over_where_envoy_has_no_room_for_a_retry", OF_ENVOY),
    Row("reload", "test_a_first_provider_that_the_map_lacks_is_passed_over_and_named_in_the_log", NO_ROUTE),
    Row("reload", "test_a_later_provider_that_the_map_lacks_is_passed_over_and_named_in_the_log", NO_ROUTE),
]


def difference(file: str, name: str) -> Optional[Row]:
    """The row about a test, by the name of the file without `test_` and the test's with its parameters."""
    test, _, parameters = name.rstrip("]").partition("[")
    for row in ROWS:
        if (row.file, row.test) == (file, test) and any(fnmatch.fnmatchcase(parameters, one) for one in row.parameters):
            return row
    return None
