-- cancel <incarnation> <consumer> <ticket>: nobody waits under this ticket any more.
local function verb()
  local consumer = tonumber(ARGV[6])
  local group, topic = find_place(tonumber(ARGV[5]), consumer)
  local member = group and find_member(group, consumer)
  if member and not member.gone then
    local ticket = tonumber(ARGV[7])
    if member.wait and member.wait[1] == ticket then
      stop_waiting(topic, group, consumer, member)
    end
    cancel(group, consumer, member, ticket)
    serve(topic, group)
  end
  return { 'ok' }
end
