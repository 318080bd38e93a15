-- One row per item of an event, in the order of the event's list.
with events as (

    select * from {{ ref('int_events_sessionized') }}

),

exploded as (

    select
        event_id,
        session_id,
        event_name,
        occurred_at,
        unnest(items) as item,
        generate_subscripts(items, 1) as item_number
    from events

),

flat as (

    select
        event_id,
        session_id,
        event_name,
        occurred_at,
        item_number,
        item.item_id,
        nullif(item.item_name, '') as title,
        nullif(item.item_category, '') as category,
        -- what a client sends is not to be trusted with the mart's contract
        case when item.price >= 0 and isfinite(item.price) then item.price end as price
    from exploded
    where item.item_id != ''

)

select * from flat
