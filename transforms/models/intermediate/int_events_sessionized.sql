-- Sessions that the client named are taken as they are. Other events belong to a session by their
-- visitor (or user): a new one begins after more than `session_gap_seconds` without an event, and
-- is named after its first event, so that events that come late do not rename the other sessions.
-- Columns that no mart needs stay in staging, to be joined by event_id.
with events as not materialized (

    select
        *,
        coalesce(
            'visitor:' || visitor_id,
            'user:' || user_id,
            'event:' || event_id
        ) as actor_id
    from {{ ref('stg_shop__events') }}

),

-- Sorting is the cost here, so nothing but the keys goes through the windows.
unnamed as (

    select
        event_id,
        actor_id,
        epoch_us(occurred_at) as occurred_us
    from events
    where client_session_id is null

),

marked as (

    select
        *,
        coalesce(
            occurred_us - lag(occurred_us) over (
                partition by actor_id order by occurred_us, event_id
            ) > {{ var('session_gap_seconds') }} * 1000000,
            true
        ) as is_first
    from unnamed

),

derived as (

    select
        event_id,
        's-' || md5(
            actor_id || '|' || last_value(case when is_first then event_id end ignore nulls) over (
                partition by actor_id order by occurred_us, event_id
                rows between unbounded preceding and current row
            )
        ) as session_id
    from marked

),

-- User agents are few: each is looked at once.
named_agents as (

    select distinct user_agent
    from events
    where user_agent is not null

),

agents as (

    select
        user_agent,
        {{ is_bot_agent('user_agent') }} as is_bot,
        {{ device_of('user_agent') }} as device
    from named_agents

),

sessionized as (

    select
        events.event_id,
        events.event_name,
        events.occurred_at,
        events.visitor_id,
        events.user_id,
        events.client_session_id,
        events.actor_id,
        events.items,
        events.recommendation_id,
        events.value,
        events.currency,
        events.source,
        coalesce(events.client_session_id, derived.session_id) as session_id,
        agents.is_bot as is_bot_agent,
        agents.device
    from events
    left join derived on events.event_id = derived.event_id
    left join agents on events.user_agent = agents.user_agent

)

select * from sessionized
