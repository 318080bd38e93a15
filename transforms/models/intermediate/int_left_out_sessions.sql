-- Sessions that are kept and not learned from, each with the first reason that holds. A limit of 0
-- is none. Only what a model learns counts towards the limits, and what shares a time counts once:
-- a long list of impressions or an order of a thousand lines is no sign of a program.
{% set max_events = env_var("SHALLOP_TRAINING__MAX_SESSION_EVENTS") | int %}
{% set max_per_minute = env_var("SHALLOP_TRAINING__MAX_EVENTS_PER_MINUTE") | int %}

with events as (

    select * from {{ ref('int_events_sessionized') }}

),

-- An event that names no agent says nothing. A person among bots is believed: a client may name its
-- sessions as it likes, and honest ones are not to be lost.
agents_of_bots as (

    select
        session_id,
        1 as reason
    from events
    where {{ env_var("SHALLOP_TRAINING__BOT_FILTER") }}
    group by session_id
    having bool_and(is_bot_agent)

),

steps as (

    select
        session_id,
        epoch_us(occurred_at) as occurred_us
    from events
    where event_name in {{ step_event_names() }}

),

-- Hardly a session has so many steps: the others are not looked at any more.
crowded as (

    select session_id
    from steps
    group by session_id
    having count(*) > least({{ max_events or "9e18" }}, {{ max_per_minute or "9e18" }})

),

moments as (

    select distinct
        session_id,
        occurred_us
    from steps
    where session_id in (select crowded.session_id from crowded)

),

too_many as (

    select
        session_id,
        2 as reason
    from moments
    where {{ max_events }} > 0
    group by session_id
    having count(*) > {{ max_events }}

),

paced as (

    select
        session_id,
        occurred_us - lag(occurred_us, {{ max_per_minute }}) over (
            partition by session_id order by occurred_us
        ) as took_us
    from moments
    where {{ max_per_minute }} > 0

),

too_fast as (

    select distinct
        session_id,
        3 as reason
    from paced
    where took_us < 60000000

),

reasons as (

    select * from agents_of_bots
    union all
    select * from too_many
    union all
    select * from too_fast

),

left_out as (

    select
        session_id,
        ['bot_agent', 'too_many_events', 'too_fast'][min(reason)] as excluded_because
    from reasons
    group by session_id

)

select * from left_out
