-- Sessions that the client named are taken as they are. Other events belong to a session by their
-- visitor (or user): a new one begins after more than `session_gap_seconds` without an event, and
-- is named after its first event, so that events that come late do not rename the other sessions.
with events as (

    select
        *,
        coalesce(
            'visitor:' || visitor_id,
            'user:' || user_id,
            'event:' || event_id
        ) as actor_id
    from {{ ref('stg_shop__events') }}

),

named as (

    select
        *,
        client_session_id as session_id
    from events
    where client_session_id is not null

),

marked as (

    select
        *,
        coalesce(
            epoch_us(occurred_at)
            - lag(epoch_us(occurred_at))
                over (
                    partition by actor_id order by occurred_at, event_id
                )
            > {{ var('session_gap_seconds') }} * 1000000,
            true
        ) as is_first
    from events
    where client_session_id is null

),

opened as (

    select
        *,
        last_value(case when is_first then event_id end ignore nulls) over (
            partition by actor_id order by occurred_at, event_id
            rows between unbounded preceding and current row
        ) as first_event_id
    from marked

),

derived as (

    select
        * exclude (is_first, first_event_id),
        's-' || md5(actor_id || '|' || first_event_id) as session_id
    from opened

)

select * from named
union all by name
select * from derived
