// Sends one event of each call through Segment's library for Node: node segment_node.cjs <host> [key]
const { Analytics } = require('@segment/analytics-node')

const analytics = new Analytics({
  writeKey: process.argv[3] ?? 'write-key', host: process.argv[2], flushAt: 4,
})
const failures = []
analytics.on('error', (error) => failures.push(String(error.reason ?? error)))

const who = { anonymousId: 'node-visitor', userId: 'node-user' }
const mug = { product_id: 'mug', name: 'Blue mug', category: 'Mugs', price: 12.5 }
const cup = { product_id: 'cup', name: 'Cup', price: 3 }

analytics.identify({ ...who, traits: { plan: 'gold' } })
analytics.page({ ...who, name: 'Home', properties: { url: 'https://shop.example/', title: 'Home' } })
analytics.track({ ...who, event: 'Product List Viewed', properties: { list_id: 'home', products: [mug, cup] } })
analytics.track({ ...who, event: 'Product Viewed', properties: { ...mug, currency: 'EUR', brand: 'Acme' } })
analytics.track({ ...who, event: 'Product Added', properties: { ...mug, quantity: 2 } })
analytics.track({
  ...who,
  event: 'Order Completed',
  timestamp: new Date('2026-01-31T12:00:00.123Z'),
  properties: { order_id: 'o-1', revenue: 28, currency: 'EUR', products: [{ ...mug, quantity: 2 }, cup] },
})
analytics.track({ ...who, event: 'Wheel Spun', properties: { prize: 'none' } })

analytics.closeAndFlush({ timeout: 15000 }).then(() => {
  console.log(JSON.stringify({ failures }))
  process.exit(failures.length ? 1 : 0)
})
