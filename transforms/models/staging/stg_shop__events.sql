-- depends_on: {{ source('raw', 'events') }}
-- Only objects that are not loaded yet are read, so a refresh costs what has landed since the last.
{% set new_objects = raw_objects(loaded=this if is_incremental() else none) %}

with raw_events as not materialized (

    select * from {{ read_raw(new_objects) }}

),

typed as not materialized (

    select
        event_id::varchar as event_id,
        event_name::varchar as event_name,
        occurred_at::timestamptz as occurred_at,
        received_at::timestamptz as received_at,
        nullif(visitor_id, '')::varchar as visitor_id,
        nullif(user_id, '')::varchar as user_id,
        nullif(session_id, '')::varchar as client_session_id,
        coalesce(items, [])::{{ item_list_type() }} as items,
        item_list_id::varchar as item_list_id,
        recommendation_id::varchar as recommendation_id,
        value::double as value,
        currency::varchar as currency,
        page_url::varchar as page_url,
        referrer::varchar as referrer,
        user_agent::varchar as user_agent,
        ip_prefix::varchar as ip_prefix,
        consent::varchar as consent,
        source::varchar as source,
        schema_version::smallint as schema_version,
        extra::varchar as extra,
        raw_object::varchar as raw_object
    from raw_events

),

-- Ids that were sent more than once are few: only their rows need to be sorted.
repeated as (

    select event_id
    from typed
    group by event_id
    having count(*) > 1

),

-- A client that retries sends the same event_id again: the first one received stays.
deduplicated as (

    select *
    from typed
    where
        not exists (
            select 1 from repeated
            where repeated.event_id = typed.event_id
        )
    union all by name
    (
        select *
        from typed
        where
            exists (
                select 1 from repeated
                where repeated.event_id = typed.event_id
            )
        qualify row_number() over (partition by event_id order by received_at, raw_object) = 1
    )

)

select * from deduplicated
{% if is_incremental() %}
    where not exists (
        select 1 from {{ this }} as loaded
        where loaded.event_id = deduplicated.event_id
    )
{% endif %}
