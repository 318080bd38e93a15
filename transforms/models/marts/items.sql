{{ config(post_hook="{{ export_mart('item_id') }}") }}

with event_items as (

    select * from {{ ref('int_event_items') }}

),

aggregated as (

    select
        item_id,
        last(title order by occurred_at, event_id, item_number)
        filter (title is not null) as title,
        last(category order by occurred_at, event_id, item_number)
        filter (category is not null) as category,
        last(price order by occurred_at, event_id, item_number)
        filter (price is not null) as price,
        count(*) filter (event_name = 'view_item') as n_views,
        count(*) filter (event_name = 'add_to_cart') as n_carts,
        count(*) filter (event_name = 'purchase') as n_purchases,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at
    from event_items
    group by item_id

)

select * from aggregated
